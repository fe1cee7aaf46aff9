//! How to reach the database.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConnectError;

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// In the clear: for a server on the same machine.
    #[default]
    Disable,
    /// TLS or nothing; the server's certificate is from `ca_file` and names the host of the URL.
    /// There is no mode that encrypts without asking who is at the other end.
    VerifyFull,
}

/// The `database` section of a service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`; `url_file` wins when both are given.
    pub url: String,
    /// File that holds the URL, so that the password is in no configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// URL of the user that owns the schema, used to migrate and for nothing else; the applier
    /// migrates by itself when it has one. `owner_url_file` wins when both are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_url: Option<String>,
    /// File that holds the owner's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_url_file: Option<PathBuf>,
    /// Whether the connection is encrypted.
    pub sslmode: SslMode,
    /// Authorities of the server's certificate, as PEM; with `sslmode = "verify-full"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Schema of all tables, created when missing: lower-case letters, digits and `_`.
    pub schema: String,
    /// Most connections of this process; Postgres allows about 100 in all.
    pub pool_size: usize,
    /// Milliseconds to establish a connection.
    pub connect_timeout_ms: u64,
    /// Milliseconds one call waits for a free connection of the pool, and a check for a sign of life.
    pub wait_timeout_ms: u64,
    /// Milliseconds one statement may run before the server ends it.
    pub statement_timeout_ms: u64,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: "postgres://nixfleet@127.0.0.1:5432/nixfleet".to_owned(),
            url_file: None,
            owner_url: None,
            owner_url_file: None,
            sslmode: SslMode::default(),
            ca_file: None,
            schema: "nixfleet".to_owned(),
            pool_size: 8,
            connect_timeout_ms: 5_000,
            wait_timeout_ms: 10_000,
            statement_timeout_ms: 60_000,
        }
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs may hold passwords.
        f.debug_struct("DatabaseConfig")
            .field("url_file", &self.url_file)
            .field("owner_url_file", &self.owner_url_file)
            .field("sslmode", &self.sslmode)
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .finish_non_exhaustive()
    }
}

/// Silence of the server's machine after which a connection is tried, and the longest time what was sent
/// may stay without its acknowledgement.
const PEER_SILENCE: Duration = Duration::from_secs(15);
/// Between two trials.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

impl DatabaseConfig {
    /// Every violated rule as (key within the section, message); empty when all is well.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !is_identifier(&self.schema) {
            let rule =
                "must be lower-case letters, digits and '_', not starting with a digit or 'pg_'";
            faults.push(("schema", rule.to_owned()));
        }
        if !(1..=100).contains(&self.pool_size) {
            faults.push(("pool_size", "must be between 1 and 100".to_owned()));
        }
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("wait_timeout_ms", self.wait_timeout_ms),
            ("statement_timeout_ms", self.statement_timeout_ms),
        ] {
            if !(100..=3_600_000).contains(&value) {
                faults.push((key, "must be between 100 and 3600000".to_owned()));
            }
        }
        let owner_url = self.owner_url.as_ref();
        let urls = [
            ("url", Some(&self.url), &self.url_file),
            ("owner_url", owner_url, &self.owner_url_file),
        ];
        for (key, url, file) in urls {
            if let (Some(url), None) = (url, file)
                && let Err(error) = url.parse::<tokio_postgres::Config>()
            {
                faults.push((key, format!("is no database URL: {error}")));
            }
        }
        match (self.sslmode, &self.ca_file) {
            (SslMode::VerifyFull, None) => {
                let rule = "is needed to verify the server: the PEM file of its authority";
                faults.push(("ca_file", rule.to_owned()));
            }
            (SslMode::Disable, Some(_)) => {
                let rule = "must be \"verify-full\" when ca_file is given";
                faults.push(("sslmode", rule.to_owned()));
            }
            (SslMode::VerifyFull, Some(_)) | (SslMode::Disable, None) => {}
        }
        faults
    }

    /// The same database as its owner; absent when no owner is configured.
    pub fn as_owner(&self) -> Option<Self> {
        if self.owner_url.is_none() && self.owner_url_file.is_none() {
            return None;
        }
        Some(Self {
            url: self.owner_url.clone().unwrap_or_default(),
            url_file: self.owner_url_file.clone(),
            owner_url: None,
            owner_url_file: None,
            // Migrating takes one connection at a time.
            pool_size: 1,
            ..self.clone()
        })
    }

    pub(crate) fn driver(&self) -> Result<tokio_postgres::Config, ConnectError> {
        let faults = self.faults().into_iter();
        let faults: Vec<_> = faults
            .map(|(key, fault)| format!("{key} {fault}"))
            .collect();
        if !faults.is_empty() {
            return Err(ConnectError::Config(faults.join("; ")));
        }
        let url = match &self.url_file {
            None => self.url.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConnectError::UrlFile {
                    path: path.display().to_string(),
                    source,
                })?
                .trim()
                .to_owned(),
        };
        let mut driver: tokio_postgres::Config = url.parse().map_err(ConnectError::Url)?;
        if driver.get_application_name().is_none() {
            driver.application_name(program());
        }
        driver.connect_timeout(self.connect_timeout());
        // A peer that vanished ends the connection within half a minute, whether it was idle or asked.
        driver.keepalives_idle(PEER_SILENCE);
        driver.keepalives_interval(KEEPALIVE_EVERY);
        driver.keepalives_retries(3);
        driver.tcp_user_timeout(PEER_SILENCE);
        // The URL cannot ask for less, and what it could ask for is not verified.
        driver.ssl_mode(match self.sslmode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
        // Times are UTC whatever the server's locale is. One generic plan per statement: batches
        // differ in length only, and a plan for a long one must not fall back to reading a table.
        driver.options(format!(
            "-c search_path={} -c TimeZone=UTC -c statement_timeout={} \
             -c plan_cache_mode=force_generic_plan",
            self.schema, self.statement_timeout_ms
        ));
        Ok(driver)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn wait_timeout(&self) -> Duration {
        Duration::from_millis(self.wait_timeout_ms)
    }
}

/// Name of the running program, by which the server lists its connections.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn is_identifier(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=63).contains(&text.len())
        && text.bytes().all(legal)
        && !text.as_bytes()[0].is_ascii_digit()
        && !text.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_no_fault() {
        assert_eq!(DatabaseConfig::default().faults(), []);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let config = DatabaseConfig {
            url: "mysql://x".to_owned(),
            schema: "a; DROP".to_owned(),
            pool_size: 0,
            statement_timeout_ms: 1,
            ..DatabaseConfig::default()
        };
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["schema", "pool_size", "statement_timeout_ms", "url"]);
    }

    #[test]
    fn verifying_needs_an_authority_and_an_authority_needs_verifying() {
        let keys = |sslmode, ca_file: Option<&str>| -> Vec<&str> {
            let config = DatabaseConfig {
                sslmode,
                ca_file: ca_file.map(PathBuf::from),
                ..DatabaseConfig::default()
            };
            config.faults().into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(SslMode::VerifyFull, None), ["ca_file"]);
        assert_eq!(keys(SslMode::Disable, Some("ca")), ["sslmode"]);
        assert!(keys(SslMode::VerifyFull, Some("ca")).is_empty());
    }

    #[test]
    fn the_owner_has_another_url_and_nothing_else() {
        let config = DatabaseConfig {
            schema: "other".to_owned(),
            owner_url: Some("postgres://owner@h/d".to_owned()),
            ..DatabaseConfig::default()
        };
        let owner = config.as_owner().unwrap();
        assert_eq!(
            (owner.url.as_str(), owner.schema.as_str()),
            ("postgres://owner@h/d", "other")
        );
        assert_eq!(owner.as_owner(), None);
    }

    #[test]
    fn a_password_is_not_printed() {
        let config = DatabaseConfig {
            url: "postgres://a:hunter2@b/c".to_owned(),
            owner_url: Some("postgres://a:hunter2@b/c".to_owned()),
            ..DatabaseConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
