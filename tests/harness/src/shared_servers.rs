//! Servers shared by all tests of a program, and namespaces that isolate one test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, anyhow};

use crate::{Database, Nats, Postgres};

/// Bus prefix and database of one test on the shared servers.
#[derive(Debug, Clone)]
pub struct TestNamespace {
    /// `nats://…` of the shared server.
    pub nats_url: String,
    /// Prefix for every stream, bucket and subject of this test.
    pub prefix: String,
    /// An empty database.
    pub database: Database,
}

/// A bus prefix and a database for one test; starts the shared servers when they do not run yet.
///
/// `name` identifies the test in names of streams and databases: letters, digits and `_`.
///
/// # Errors
/// When a server is missing or does not start; the message names the remedy.
pub async fn test_namespace(name: &str) -> Result<TestNamespace> {
    Ok(TestNamespace {
        nats_url: shared_nats()?.url(),
        prefix: unique_prefix(name),
        database: shared_postgres()?.create_database(name).await?,
    })
}

/// A bus prefix that is unique in this program.
pub fn unique_prefix(name: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let clean: String = name
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(24)
        .collect();
    format!("t{number}{clean}")
}

/// The NATS server all tests of this program share. Do not stop it: start your own to do that.
///
/// # Errors
/// When it is missing or does not start.
pub fn shared_nats() -> Result<&'static Nats> {
    static NATS: OnceLock<Result<Nats, String>> = OnceLock::new();
    NATS.get_or_init(|| Nats::start("shared").map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

/// The Postgres server all tests of this program share. Do not stop it: start your own to do that.
///
/// # Errors
/// When it is missing or does not start.
pub fn shared_postgres() -> Result<&'static Postgres> {
    static POSTGRES: OnceLock<Result<Postgres, String>> = OnceLock::new();
    POSTGRES
        .get_or_init(|| Postgres::start("shared").map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}
