//! How to reach the database.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConnectError;

/// The `database` section of a service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`; `url_file` wins when both are given.
    pub url: String,
    /// File that holds the URL, so that the password is in no configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Schema of all tables, created when missing: lower-case letters, digits and `_`.
    pub schema: String,
    /// Most connections of this process; Postgres allows about 100 in all.
    pub pool_size: usize,
    /// Milliseconds to establish a connection.
    pub connect_timeout_ms: u64,
    /// Milliseconds one call waits for a free connection of the pool.
    pub wait_timeout_ms: u64,
    /// Milliseconds one statement may run before the server ends it.
    pub statement_timeout_ms: u64,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: "postgres://nixfleet@127.0.0.1:5432/nixfleet".to_owned(),
            url_file: None,
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
        // The URL may hold a password.
        f.debug_struct("DatabaseConfig")
            .field("url_file", &self.url_file)
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .finish_non_exhaustive()
    }
}

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
            faults.push(("pool_size", "must be 1 to 100".to_owned()));
        }
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("wait_timeout_ms", self.wait_timeout_ms),
            ("statement_timeout_ms", self.statement_timeout_ms),
        ] {
            if !(100..=3_600_000).contains(&value) {
                faults.push((key, "must be 100 to 3600000".to_owned()));
            }
        }
        if self.url_file.is_none()
            && let Err(error) = self.url.parse::<tokio_postgres::Config>()
        {
            faults.push(("url", format!("is no database URL: {error}")));
        }
        faults
    }

    pub(crate) fn driver(&self) -> Result<tokio_postgres::Config, ConnectError> {
        if let Some((key, fault)) = self.faults().into_iter().next() {
            return Err(ConnectError::Config(format!("{key} {fault}")));
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
        driver.connect_timeout(self.connect_timeout());
        driver.keepalives_idle(Duration::from_secs(15));
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
    fn a_password_is_not_printed() {
        let config = DatabaseConfig {
            url: "postgres://a:hunter2@b/c".to_owned(),
            ..DatabaseConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
