//! Bringing the schema to the version of this binary.

use std::time::Duration;

use deadpool_postgres::Object;

use crate::error::{DbError, MigrateError, ReadError};
use crate::sql::sql;
use crate::store::Store;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Longest wait for somebody else's migration.
const LOCK_PATIENCE: Duration = Duration::from_secs(300);

/// What [`Store::migrate`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Names of the migrations applied now, in order; empty when the schema was current.
    pub applied: Vec<String>,
}

impl Store {
    /// Creates the schema when it is missing, applies the migrations it lacks, and grants each
    /// service's user what it needs, all as the owner when one is configured. Callers that migrate at
    /// once wait for each other. Without an owner a schema that is current is left as it is.
    ///
    /// # Errors
    /// When the database fails, or when it holds migrations this binary does not know.
    pub async fn migrate(&self) -> Result<MigrationReport, MigrateError> {
        let client = match &self.owner {
            Some(owner) => owner.get().await.map_err(DbError::Pool)?,
            // The user of a service may not migrate, and has no need to.
            None if self.schema_ready().await.is_ok() && !self.owns_schema().await? => {
                return Ok(MigrationReport::default());
            }
            None => self.client().await?,
        };
        // Taken out of the pool: the lock and the timeout belong to the session and end with it.
        let mut client = Object::take(client);
        let settings = format!(
            "SET statement_timeout = {}; SET client_min_messages = warning",
            LOCK_PATIENCE.as_millis()
        );
        client
            .batch_execute(&settings)
            .await
            .map_err(DbError::statement("migrate settings"))?;
        let lock = sql!("migrate_lock");
        client
            .execute(lock.text, &[&self.schema])
            .await
            .map_err(DbError::statement(lock.name))?;
        client
            .batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema))
            .await
            .map_err(DbError::statement("create schema"))?;
        let report = embedded::migrations::runner()
            .run_async(&mut *client)
            .await
            .map_err(|error| MigrateError::Refinery(Box::new(error)))?;
        let grants = sql!("grants");
        client
            .batch_execute(grants.text)
            .await
            .map_err(DbError::statement(grants.name))?;
        Ok(MigrationReport {
            applied: report
                .applied_migrations()
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
    }

    async fn owns_schema(&self) -> Result<bool, DbError> {
        let client = self.client().await?;
        let row = sql!("schema_owned")
            .query_opt(&client, &[&self.schema])
            .await?;
        Ok(row.is_some_and(|row| row.get(0)))
    }

    /// Succeeds when the schema is at least at the version of this binary.
    ///
    /// # Errors
    /// [`ReadError::schema_missing`] when there is none, [`ReadError::SchemaOutdated`] when it is
    /// older; both end when the applier has migrated.
    pub async fn schema_ready(&self) -> Result<(), ReadError> {
        let version = async |client: &Object| sql!("schema_version").query_opt(client, &[]).await;
        let row = self.ask(version).await?;
        let found = row
            .and_then(|row| row.get::<_, Option<i32>>(0))
            .unwrap_or(0);
        let wanted = latest_version();
        if found < wanted {
            return Err(ReadError::SchemaOutdated { found, wanted });
        }
        Ok(())
    }
}

/// Version of the last migration embedded in this binary.
fn latest_version() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}
