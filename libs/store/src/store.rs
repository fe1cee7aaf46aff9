//! The connection pool.

use std::sync::Arc;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;

use crate::archive::KnownDays;
use crate::config::DatabaseConfig;
use crate::error::{ConnectError, DbError};

/// The database; cheap to clone, all clones share one pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    pub(crate) schema: String,
    pub(crate) days: Arc<KnownDays>,
}

impl Store {
    /// Opens the store. Connections are made when they are needed, so this succeeds while the
    /// database is down.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub fn connect(config: &DatabaseConfig) -> Result<Self, ConnectError> {
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(config.driver()?, NoTls, recycling);
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.wait_timeout()))
            .create_timeout(Some(config.connect_timeout()))
            .recycle_timeout(Some(config.connect_timeout()))
            .build()
            .map_err(ConnectError::Build)?;
        Ok(Self {
            pool,
            schema: config.schema.clone(),
            days: Arc::default(),
        })
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// When it gives none in time.
    pub async fn ping(&self) -> Result<(), DbError> {
        let client = self.client().await?;
        client
            .simple_query("SELECT 1")
            .await
            .map_err(DbError::statement("ping"))?;
        Ok(())
    }

    /// Closes all connections; later calls fail.
    pub fn close(&self) {
        self.pool.close();
    }

    pub(crate) async fn client(&self) -> Result<Object, DbError> {
        self.pool.get().await.map_err(DbError::Pool)
    }
}
