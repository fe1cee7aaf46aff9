//! Named statements: one file in `sql/` each, prepared once per connection.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream, Statement};

use crate::error::DbError;

/// A statement and its name, which errors contain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreparedStatement {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// The statement of the file with this name.
macro_rules! sql {
    ($name:literal) => {
        $crate::prepared_statement::PreparedStatement {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $name, ".sql")),
        }
    };
}
pub(crate) use sql;

pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PreparedStatement {
    pub(crate) async fn prepare(self, client: &impl GenericClient) -> Result<Statement, DbError> {
        client
            .prepare_cached(self.text)
            .await
            .map_err(DbError::statement(self.name))
    }

    pub(crate) async fn query(
        self,
        client: &impl GenericClient,
        params: Params<'_>,
    ) -> Result<Vec<Row>, DbError> {
        let statement = self.prepare(client).await?;
        client
            .query(&statement, params)
            .await
            .map_err(DbError::statement(self.name))
    }

    pub(crate) async fn query_opt(
        self,
        client: &impl GenericClient,
        params: Params<'_>,
    ) -> Result<Option<Row>, DbError> {
        let statement = self.prepare(client).await?;
        client
            .query_opt(&statement, params)
            .await
            .map_err(DbError::statement(self.name))
    }

    pub(crate) async fn query_one(
        self,
        client: &impl GenericClient,
        params: Params<'_>,
    ) -> Result<Row, DbError> {
        let statement = self.prepare(client).await?;
        client
            .query_one(&statement, params)
            .await
            .map_err(DbError::statement(self.name))
    }

    /// Streams the rows of a statement with one text parameter.
    pub(crate) async fn stream(
        self,
        client: &impl GenericClient,
        param: &str,
    ) -> Result<RowStream, DbError> {
        let statement = self.prepare(client).await?;
        client
            .query_raw(&statement, [param])
            .await
            .map_err(DbError::statement(self.name))
    }

    /// Runs the statement and returns the number of affected rows.
    pub(crate) async fn execute(
        self,
        client: &impl GenericClient,
        params: Params<'_>,
    ) -> Result<u64, DbError> {
        let statement = self.prepare(client).await?;
        client
            .execute(&statement, params)
            .await
            .map_err(DbError::statement(self.name))
    }
}
