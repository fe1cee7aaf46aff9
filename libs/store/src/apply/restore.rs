//! Restoring the rows of a partition from a checkpoint, whatever its tables contain.
//!
//! Records are never deleted: a checkpoint of the same log has every rollout that older rows have.

use std::collections::BTreeSet;

use deadpool_postgres::Transaction;
use nixfleet_proto::snapshot::PartitionSnapshot;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::turn_rows::turns_from_snapshot;

use super::{EncodedRecords, write_rows};
use crate::apply::apply_result::ApplyResult;
use crate::cursor;
use crate::error::{ApplyError, DbError};
use crate::parameter_encoding::nul_escape::decode;
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::transaction::{begin, commit};

impl Store {
    /// Replaces all rows of a partition and moves its cursor from `previous_out_seq` (0: there is none),
    /// all or nothing.
    ///
    /// # Errors
    /// [`ApplyError::Conflict`] when the cursor was not at `previous_out_seq`.
    pub async fn restore_partition(
        &self,
        partition: Partition,
        previous_out_seq: u64,
        rows: &PartitionSnapshot,
    ) -> Result<ApplyResult, ApplyError> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client).await?;
        if let Some(cursor) = &rows.cursor {
            cursor::compare_and_swap(&transaction, partition, previous_out_seq, cursor).await?;
        }
        clear(&transaction, partition).await?;
        let known = known_rollouts(&transaction, partition).await?;
        let mut applied = ApplyResult::default();
        for mut turn in turns_from_snapshot(rows) {
            turn.opened
                .retain(|opened| !known.contains(opened.record.rollout_id.as_str()));
            let records = EncodedRecords::of(&turn)?;
            write_rows(&transaction, partition, (&turn, &records), &mut applied).await?;
        }
        commit(transaction).await?;
        Ok(applied)
    }
}

/// Deletes the rows that are not records.
async fn clear(transaction: &Transaction<'_>, partition: Partition) -> Result<(), DbError> {
    let number = i32::from(partition.number());
    for statement in [
        sql!("restore_clear_quarantines"),
        sql!("restore_clear_probe_failures"),
        sql!("restore_clear_dispatches"),
        sql!("restore_clear_blocks"),
        sql!("restore_clear_candidates"),
    ] {
        statement.execute(transaction, &[&number]).await?;
    }
    Ok(())
}

async fn known_rollouts(
    transaction: &Transaction<'_>,
    partition: Partition,
) -> Result<BTreeSet<String>, DbError> {
    let number = i32::from(partition.number());
    let rows = sql!("restore_known_rollouts")
        .query(transaction, &[&number])
        .await?;
    Ok(rows
        .iter()
        .map(|row| decode(row.get(0)).into_owned())
        .collect())
}
