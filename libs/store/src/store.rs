//! The connection pool.

mod tls;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::NaiveDate;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DatabaseConfig, SslMode};
use crate::error::{ConnectError, DbError};

/// Days whose partition of `event_log` is known to exist.
pub(crate) type KnownDays = Mutex<BTreeSet<NaiveDate>>;

/// The database; cheap to clone, all clones share one pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    /// Connections of the schema's owner, when one is configured.
    pub(crate) owner: Option<Pool>,
    pub(crate) schema: String,
    /// Longest wait for the answer of a check.
    answer_timeout: Duration,
    pub(crate) days: Arc<KnownDays>,
}

impl Store {
    /// Opens the store. Connections are made on demand, so this succeeds while the database is down.
    pub fn connect(config: &DatabaseConfig) -> Result<Self, ConnectError> {
        let owner = config.as_owner().map(|owner| pool(&owner)).transpose()?;
        Ok(Self {
            pool: pool(config)?,
            owner,
            schema: config.schema.clone(),
            answer_timeout: config.wait_timeout(),
            days: Arc::default(),
        })
    }

    /// Checks that the server answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        let ping = async |client: &Object| {
            let answer = client.simple_query("SELECT 1").await;
            answer.map(drop).map_err(DbError::statement("ping"))
        };
        self.ask(ping).await
    }

    /// Runs a cheap query with a timeout. After a timeout the connection is dropped, because a server that
    /// hangs keeps its connections open.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Object) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let client = self.client().await?;
        let answer = tokio::time::timeout(self.answer_timeout, question(&client)).await;
        answer.unwrap_or_else(|_| {
            drop(Object::take(client));
            let waited = self.answer_timeout;
            Err(DbError::Silent { waited })
        })
    }

    /// Closes all connections; later calls fail.
    pub fn close(&self) {
        self.pool.close();
        if let Some(owner) = &self.owner {
            owner.close();
        }
    }

    /// A connection as the owner of the schema, when one is configured.
    pub(crate) async fn owner_client(&self) -> Result<Object, DbError> {
        match &self.owner {
            Some(owner) => owner.get().await.map_err(DbError::Pool),
            None => self.client().await,
        }
    }

    pub(crate) async fn client(&self) -> Result<Object, DbError> {
        self.pool.get().await.map_err(DbError::Pool)
    }
}

fn pool(config: &DatabaseConfig) -> Result<Pool, ConnectError> {
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let driver = config.driver()?;
    let manager = match config.sslmode {
        SslMode::Disable => {
            warn_of_clear_text(&driver);
            Manager::from_config(driver, NoTls, recycling)
        }
        SslMode::VerifyFull => {
            let tls = MakeRustlsConnect::new(tls::client(config.ca_file.as_deref())?);
            Manager::from_config(driver, tls, recycling)
        }
    };
    Pool::builder(manager)
        .max_size(config.pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(config.wait_timeout()))
        .create_timeout(Some(config.connect_timeout()))
        .recycle_timeout(Some(config.connect_timeout()))
        .build()
        .map_err(ConnectError::Build)
}

fn warn_of_clear_text(driver: &tokio_postgres::Config) {
    let is_near = |host: &Host| match host {
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    };
    if !driver.get_hosts().iter().all(is_near) {
        tracing::warn!(
            "the connection to Postgres is not encrypted; set database.sslmode to \"verify-full\""
        );
    }
}
