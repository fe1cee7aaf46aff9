//! Writing a turn: all its rows and the cursor in one transaction.

use deadpool_postgres::Transaction;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::cursor;
use crate::error::{ApplyError, DbError};
use crate::rows::{Applied, TurnRows};
use crate::store::Store;

mod aside;
mod columns;
mod open;
pub(crate) mod rebuild;
mod records;
mod restore;

use records::HostParams;

impl Store {
    /// Writes the rows of one turn and moves the cursor from `previous_out_seq` (0: there is none)
    /// to `cursor`, all or nothing.
    ///
    /// # Errors
    /// [`ApplyError::Conflict`] when the cursor was not at `previous_out_seq`.
    pub async fn apply_turn(
        &self,
        partition: Partition,
        previous_out_seq: u64,
        rows: &TurnRows,
        cursor: &Cursor,
    ) -> Result<Applied, ApplyError> {
        let records = TurnRecords::of(rows)?;
        let rows = (rows, &records);
        self.apply_encoded(partition, previous_out_seq, rows, cursor)
            .await
    }

    /// The same with records that were encoded before.
    ///
    /// # Errors
    /// As [`Store::apply_turn`].
    pub async fn apply_encoded(
        &self,
        partition: Partition,
        previous_out_seq: u64,
        rows: (&TurnRows, &TurnRecords),
        cursor: &Cursor,
    ) -> Result<Applied, ApplyError> {
        let mut client = self.client().await?;
        let transaction = client
            .transaction()
            .await
            .map_err(DbError::statement("begin"))?;
        // First, so that two appliers meet at this row before either writes anything else.
        cursor::compare_and_swap(&transaction, partition, previous_out_seq, cursor).await?;
        let mut applied = Applied::default();
        write_rows(&transaction, partition, rows, &mut applied).await?;
        transaction
            .commit()
            .await
            .map_err(DbError::statement("commit"))?;
        Ok(applied)
    }
}

/// The hosts of a turn as their statement takes them. Making that is most of the work before a
/// transaction, and needs no database: it may be done while the turn before is written.
#[derive(Debug)]
pub struct TurnRecords {
    hosts: Vec<HostParams>,
}

impl TurnRecords {
    /// Encodes the hosts of a turn.
    ///
    /// # Errors
    /// When a record has no form as JSON.
    pub fn of(rows: &TurnRows) -> Result<Self, ApplyError> {
        Ok(Self {
            hosts: records::host_params(&rows.hosts)?,
        })
    }
}

async fn write_rows(
    transaction: &Transaction<'_>,
    partition: Partition,
    (rows, records): (&TurnRows, &TurnRecords),
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    for opened in &rows.opened {
        applied.rows += open::insert(transaction, partition, opened).await?;
    }
    records::update_rollouts(transaction, &rows.rollouts, applied).await?;
    records::update_hosts(transaction, &rows.hosts, &records.hosts, applied).await?;
    records::update_candidates(transaction, &rows.recovery_candidates, applied).await?;
    aside::quarantines(transaction, partition, rows, applied).await?;
    aside::probe_failures(transaction, &rows.probe_failures, applied).await?;
    aside::dispatches(transaction, rows, applied).await?;
    aside::blocks(transaction, &rows.blocks, applied).await
}

impl Applied {
    /// Adds the result of a statement that should have touched `expected` rows.
    fn expect(&mut self, touched: u64, expected: usize) {
        self.rows += touched;
        self.orphans += (expected as u64).saturating_sub(touched);
    }
}
