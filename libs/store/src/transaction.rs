//! Beginning and committing transactions.

use deadpool_postgres::{Client, Transaction};

use crate::error::DbError;

pub(crate) async fn begin(client: &mut Client) -> Result<Transaction<'_>, DbError> {
    let begun = client.transaction().await;
    begun.map_err(DbError::statement("begin"))
}

pub(crate) async fn commit(transaction: Transaction<'_>) -> Result<(), DbError> {
    let committed = transaction.commit().await;
    committed.map_err(DbError::statement("commit"))
}
