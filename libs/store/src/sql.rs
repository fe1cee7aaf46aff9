//! Named statements: one file in `sql/` each, prepared once per connection; and the encoding of their
//! parameters.

pub(crate) mod binary_copy;
pub(crate) mod column_value;
pub(crate) mod encoded_parameter;
pub mod escape;
pub(crate) mod json_parameter;
pub(crate) mod transaction;

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream, Statement};

use crate::error::DbError;

/// A statement and its name, which errors contain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// The statement of the file with this name.
macro_rules! sql {
    ($name:literal) => {
        $crate::sql::Sql {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $name, ".sql")),
        }
    };
}
pub(crate) use sql;

pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Sql {
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
