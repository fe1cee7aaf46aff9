//! Database users of the services.
//!
//! Each service has its own user, named after the schema and the service. [`Store::migrate`] grants it the
//! rights listed in `sql/grants.sql`. Users belong to the whole server: creating one needs more rights than
//! owning a schema.

use postgres_protocol::password::scram_sha_256;

use crate::error::DbError;
use crate::prepared_statement::sql;
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

/// Treatment of a user that already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingUser {
    /// The user keeps its password.
    Keep,
    /// The user gets the new password.
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

    /// Name of the service's user for tables in this schema.
    pub fn user(self, schema: &str) -> String {
        format!("{schema}_{}", self.name())
    }
}

impl Store {
    /// Creates the user of a service with this password; the user has no rights before
    /// [`Store::migrate`]. Returns true when the user has this password afterwards.
    ///
    /// # Errors
    /// When the database fails or the connected user may not create others.
    pub async fn create_role(
        &self,
        role: Role,
        password: &str,
        existing: ExistingUser,
    ) -> Result<bool, DbError> {
        let client = self.client().await?;
        let name = role.user(&self.schema);
        // Hashed here, so that no server log has the password.
        let verifier = scram_sha_256(password.as_bytes());
        let row = sql!("role_quoted")
            .query_one(&client, &[&name, &verifier])
            .await?;
        let (exists, name, verifier): (bool, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let verb = match (exists, existing) {
            (false, _) => "CREATE",
            (true, ExistingUser::ChangePassword) => "ALTER",
            (true, ExistingUser::Keep) => return Ok(false),
        };
        let statement = format!("{verb} ROLE {name} LOGIN PASSWORD {verifier}");
        client
            .batch_execute(&statement)
            .await
            .map_err(DbError::statement("create role"))?;
        Ok(true)
    }
}
