//! Rebuilding the domain tables: all rows become visible at once, or nothing changes.

use deadpool_postgres::{Object, Transaction};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use super::{EncodedRecords, write_rows};
use crate::apply::apply_result::ApplyResult;
use crate::cursor;
use crate::error::{ApplyError, DbError, RebuildError};
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::transaction::{begin, commit};
use nixfleet_proto::turn_rows::TurnRows;

/// No service holds a lock on the tables for longer than its statement timeout, unless it hangs.
const LOCK_TIMEOUT: &str = "90s";

/// A connection for a rebuild.
pub struct RebuildSession(Object);

/// Domain tables that are being rebuilt. Dropping the value without [`Rebuild::commit`] leaves them
/// unchanged. Readers wait.
pub struct Rebuild<'a> {
    transaction: Transaction<'a>,
}

impl Store {
    /// A connection for a rebuild, as the owner of the schema when one is configured.
    pub async fn rebuild_session(&self) -> Result<RebuildSession, DbError> {
        Ok(RebuildSession(self.owner_client().await?))
    }
}

impl RebuildSession {
    /// Empties the tables that are derived from the log. The table `hosts` is derived from heartbeats and
    /// stays.
    ///
    /// # Errors
    /// [`RebuildError::InUse`] while an applier is connected, because it would write rows from its memory.
    pub async fn begin(&mut self) -> Result<Rebuild<'_>, RebuildError> {
        let transaction = begin(&mut self.0).await?;
        let settings =
            format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
        transaction
            .batch_execute(&settings)
            .await
            .map_err(DbError::statement("rebuild settings"))?;
        let row = sql!("appliers_connected")
            .query_one(&transaction, &[])
            .await?;
        let connections: i64 = row.get(0);
        if connections > 0 {
            return Err(RebuildError::InUse { connections });
        }
        let truncate = sql!("rebuild_truncate");
        transaction
            .batch_execute(truncate.text)
            .await
            .map_err(DbError::statement(truncate.name))?;
        Ok(Rebuild { transaction })
    }
}

impl Rebuild<'_> {
    /// Writes the rows of one turn, as [`Store::apply_turn`] does.
    ///
    /// # Errors
    /// When the database fails; the rebuild must be dropped then.
    pub async fn write(
        &self,
        partition: Partition,
        rows: &TurnRows,
    ) -> Result<ApplyResult, ApplyError> {
        let mut applied = ApplyResult::default();
        let records = EncodedRecords::of(rows)?;
        let rows = (rows, &records);
        write_rows(&self.transaction, partition, rows, &mut applied).await?;
        Ok(applied)
    }

    /// Sets the cursor of a partition after all its rows.
    pub async fn set_cursor(
        &self,
        partition: Partition,
        cursor: &Cursor,
    ) -> Result<(), ApplyError> {
        cursor::compare_and_swap(&self.transaction, partition, 0, cursor).await
    }

    /// Commits the rebuild.
    ///
    /// # Errors
    /// When the database fails; the tables are unchanged then.
    pub async fn commit(self) -> Result<(), DbError> {
        commit(self.transaction).await
    }
}
