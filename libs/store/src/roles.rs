//! The users of the services.
//!
//! Each service has its own, named after the schema and the service, and may do what
//! `sql/grants.sql` says; [`Store::migrate`] makes it so. Users belong to the whole server: whoever
//! makes them needs more rights than the owner of a schema has.

use postgres_protocol::password::scram_sha_256;

use crate::error::DbError;
use crate::sql::sql;
use crate::store::Store;

/// A service with a user of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Writes the domain tables.
    Applier,
    /// Writes the archive.
    Eventlog,
    /// Reads what people ask for.
    Console,
    /// Reads the dispatch queue for agents.
    Ingest,
    /// Reads the state.
    Planner,
    /// Reads the state.
    Reducer,
}

/// What to do about a user that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It keeps its password.
    Keep,
    /// It gets the new one.
    ChangePassword,
}

impl Role {
    /// Every service.
    pub const ALL: [Self; 6] = [
        Self::Applier,
        Self::Eventlog,
        Self::Console,
        Self::Ingest,
        Self::Planner,
        Self::Reducer,
    ];

    /// Name of the service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applier => "applier",
            Self::Eventlog => "eventlog",
            Self::Console => "console",
            Self::Ingest => "ingest",
            Self::Planner => "planner",
            Self::Reducer => "reducer",
        }
    }

    /// Name of its user for tables in this schema.
    pub fn user(self, schema: &str) -> String {
        format!("{schema}_{}", self.name())
    }
}

impl Store {
    /// Makes the user of a service with this password; it may do nothing before
    /// [`Store::migrate`]. True when the password is the user's now.
    ///
    /// # Errors
    /// When the database fails or this user may not make others.
    pub async fn create_role(
        &self,
        role: Role,
        password: &str,
        existing: Existing,
    ) -> Result<bool, DbError> {
        let client = self.client().await?;
        let name = role.user(&self.schema);
        // Hashed here, so that the password itself is in no server log.
        let verifier = scram_sha_256(password.as_bytes());
        let row = sql!("role_quoted")
            .query_one(&client, &[&name, &verifier])
            .await?;
        let (exists, name, verifier): (bool, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let verb = match (exists, existing) {
            (false, _) => "CREATE",
            (true, Existing::ChangePassword) => "ALTER",
            (true, Existing::Keep) => return Ok(false),
        };
        let statement = format!("{verb} ROLE {name} LOGIN PASSWORD {verifier}");
        client
            .batch_execute(&statement)
            .await
            .map_err(DbError::statement("create role"))?;
        Ok(true)
    }
}
