//! Applying a turn: its rows and the cursor in one transaction.

use deadpool_postgres::Transaction;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::apply::apply_result::ApplyResult;
use crate::cursor;
use crate::error::ApplyError;
use crate::store::Store;
use crate::transaction::{begin, commit};
use nixfleet_proto::turn_rows::TurnRows;

pub(crate) mod apply_result;
mod blocks;
mod dispatches;
mod host_columns;
mod liveness;
mod open_rollout;
mod probe_failures;
mod quarantines;
pub(crate) mod rebuild;
mod record_updates;
mod restore;

use record_updates::HostParams;

impl Store {
    /// Writes the rows of one turn and moves the cursor from `previous_out_seq` (0: there is none) to
    /// `cursor`, all or nothing.
    ///
    /// # Errors
    /// [`ApplyError::Conflict`] when the cursor was not at `previous_out_seq`.
    pub async fn apply_turn(
        &self,
        partition: Partition,
        previous_out_seq: u64,
        rows: &TurnRows,
        cursor: &Cursor,
    ) -> Result<ApplyResult, ApplyError> {
        let records = EncodedRecords::of(rows)?;
        let rows = (rows, &records);
        self.apply_encoded(partition, previous_out_seq, rows, cursor)
            .await
    }

    /// Like [`Store::apply_turn`], with records that were encoded before.
    pub async fn apply_encoded(
        &self,
        partition: Partition,
        previous_out_seq: u64,
        rows: (&TurnRows, &EncodedRecords),
        cursor: &Cursor,
    ) -> Result<ApplyResult, ApplyError> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client).await?;
        // The cursor comes first, so that two appliers conflict on this row before either writes anything
        // else.
        cursor::compare_and_swap(&transaction, partition, previous_out_seq, cursor).await?;
        let mut applied = ApplyResult::default();
        write_rows(&transaction, partition, rows, &mut applied).await?;
        commit(transaction).await?;
        Ok(applied)
    }
}

/// The hosts of a turn as encoded statement parameters. Encoding is most of the work before a transaction
/// and needs no database, so it can run while the turn before is written.
#[derive(Debug)]
pub struct EncodedRecords {
    hosts: Vec<HostParams>,
}

impl EncodedRecords {
    /// Encodes the hosts of a turn.
    pub fn of(rows: &TurnRows) -> Result<Self, ApplyError> {
        Ok(Self {
            hosts: record_updates::host_params(&rows.hosts)?,
        })
    }
}

async fn write_rows(
    transaction: &Transaction<'_>,
    partition: Partition,
    (rows, records): (&TurnRows, &EncodedRecords),
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    for opened in &rows.opened {
        applied.rows += open_rollout::insert(transaction, partition, opened).await?;
    }
    record_updates::update_rollouts(transaction, &rows.rollouts, applied).await?;
    record_updates::update_hosts(transaction, &rows.hosts, &records.hosts, applied).await?;
    record_updates::update_candidates(transaction, &rows.recovery_candidates, applied).await?;
    quarantines::quarantines(transaction, partition, rows, applied).await?;
    probe_failures::probe_failures(transaction, &rows.probe_failures, applied).await?;
    dispatches::dispatches(transaction, rows, applied).await?;
    blocks::blocks(transaction, &rows.blocks, applied).await
}
