//! Configuration of the database connection.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConnectError;

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Unencrypted; for a server on the same machine.
    #[default]
    Disable,
    /// TLS is required, and the server's certificate is issued by `ca_file` and names the host of the URL.
    /// There is no mode that encrypts without verifying the server.
    VerifyFull,
}

/// The `database` section of a service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`; `url_file` wins when both are given.
    pub url: String,
    /// File with the URL, so that no configuration contains the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// URL of the owner of the schema, used for migrations only; the applier migrates when it has one.
    /// `owner_url_file` wins when both are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_url: Option<String>,
    /// File with the owner's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_url_file: Option<PathBuf>,
    /// Whether the connection is encrypted.
    pub sslmode: SslMode,
    /// PEM file with the authorities of the server's certificate; with `sslmode = "verify-full"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Schema of all tables, created when it is missing: lower-case letters, digits and `_`.
    pub schema: String,
    /// Most connections of this process; Postgres accepts about 100 in total.
    pub pool_size: usize,
    /// Milliseconds in which a connection must be established.
    pub connect_timeout_ms: u64,
    /// Milliseconds that a call waits for a free connection of the pool, and that a check waits for an
    /// answer.
    pub wait_timeout_ms: u64,
    /// Milliseconds after which the server ends a statement.
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

/// Silence after which a connection is probed, and longest time that sent data may stay unacknowledged.
const PEER_SILENCE: Duration = Duration::from_secs(15);
/// Interval between two probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

impl DatabaseConfig {
    /// All faults as (key within the section, message); empty when the values are valid.
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
                faults.push((key, format!("is not a database URL: {error}")));
            }
        }
        match (self.sslmode, &self.ca_file) {
            (SslMode::VerifyFull, None) => {
                let rule = "must name the PEM file of the server's authority when sslmode is \"verify-full\"";
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

    /// The same database with the owner's URL; `None` when no owner is configured.
    pub fn as_owner(&self) -> Option<Self> {
        if self.owner_url.is_none() && self.owner_url_file.is_none() {
            return None;
        }
        Some(Self {
            url: self.owner_url.clone().unwrap_or_default(),
            url_file: self.owner_url_file.clone(),
            owner_url: None,
            owner_url_file: None,
            // Migrations use one connection at a time.
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
        // A peer that vanished ends the connection within half a minute, idle or not.
        driver.keepalives_idle(PEER_SILENCE);
        driver.keepalives_interval(KEEPALIVE_EVERY);
        driver.keepalives_retries(3);
        driver.tcp_user_timeout(PEER_SILENCE);
        // The URL can neither weaken the mode nor request one that does not verify the server.
        driver.ssl_mode(match self.sslmode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
        // Times are UTC whatever the server's locale. Every statement has one generic plan: batches differ
        // only in length, and a plan for a long one must not fall back to a sequential scan.
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

/// Name of the running program, which the server shows in its list of connections.
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
    fn the_default_is_valid() {
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
    fn verify_full_and_ca_file_need_each_other() {
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
    fn the_owner_configuration_differs_in_its_url() {
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
