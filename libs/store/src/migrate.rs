//! Migrations: bring the schema to the version of this binary.

use std::time::Duration;

use deadpool_postgres::Object;

use crate::error::{DbError, DivergentSchema, MigrateError, ReadError};
use crate::prepared_statement::sql;
use crate::store::Store;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Longest wait for a migration that runs elsewhere.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Result of [`Store::migrate`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Names of the migrations applied now, in order; empty when the schema was current.
    pub applied: Vec<String>,
}

impl Store {
    /// Creates the schema when it is missing, applies the migrations it lacks, and grants each
    /// service's user its rights, all as the owner when one is configured. Concurrent callers wait for
    /// each other. A user who does not own the schema leaves a current schema unchanged.
    ///
    /// # Errors
    /// When the database fails, or when other migrations than those of this binary built the schema.
    pub async fn migrate(&self) -> Result<MigrationReport, MigrateError> {
        let client = match &self.owner {
            Some(owner) => owner.get().await.map_err(DbError::Pool)?,
            None => match self.schema_ready().await {
                // The user of a service may not migrate a schema that is current.
                Ok(()) if !self.owns_schema().await? => return Ok(MigrationReport::default()),
                Err(ReadError::Divergent(divergent)) => return Err(divergent.into()),
                Ok(()) | Err(_) => self.client().await?,
            },
        };
        // Taken out of the pool: lock and timeout end with the session.
        let mut client = Object::take(client);
        let settings = format!(
            "SET statement_timeout = {}; SET client_min_messages = warning",
            LOCK_TIMEOUT.as_millis()
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
            .await?;
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
    /// [`ReadError::schema_missing`] when it is missing, [`ReadError::SchemaOutdated`] when it is older;
    /// both end when the applier has migrated. [`ReadError::Divergent`] when other migrations
    /// than those of this binary built it.
    pub async fn schema_ready(&self) -> Result<(), ReadError> {
        let last = last_migration();
        let (wanted, checksum) = (last.version(), last.checksum().to_string());
        let version = async |client: &Object| {
            sql!("schema_version")
                .query_one(client, &[&wanted, &checksum])
                .await
        };
        let row = self.ask(version).await?;
        let found = row.get::<_, Option<i32>>(0).unwrap_or(0);
        if found < wanted {
            return Err(ReadError::SchemaOutdated { found, wanted });
        }
        match row.get(1) {
            Some(false) => Err(DivergentSchema(last.to_string()).into()),
            Some(true) | None => Ok(()),
        }
    }
}

fn last_migration() -> refinery::Migration {
    let runner = embedded::migrations::runner();
    let migrations = runner.get_migrations().iter();
    let last = migrations.max_by_key(|migration| migration.version());
    last.cloned().expect("a binary embeds migrations")
}
