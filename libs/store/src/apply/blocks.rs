//! Writing the blocks of gates.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;

use super::record_updates::StampColumns;
use crate::apply::apply_result::ApplyResult;
use crate::error::ApplyError;
use crate::parameter_encoding::column_value::{column_time, record_json};
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use nixfleet_proto::turn_rows::{BlockChange, BlockKey};

pub(super) async fn blocks(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<BlockKey, BlockChange>,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    let (mut ids, mut waves, mut gates) = (Vec::new(), Vec::new(), Vec::new());
    for ((id, wave, gate), _) in changes.iter().filter(|(_, c)| c.holds.is_empty()) {
        ids.push(encode(id.as_str()));
        waves.push(i64::from(*wave));
        gates.push(gate.name());
    }
    if !ids.is_empty() {
        applied.rows += sql!("blocks_delete")
            .execute(transaction, &[&ids, &waves, &gates])
            .await?;
    }
    upsert_blocks(transaction, changes, applied).await
}

async fn upsert_blocks(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<BlockKey, BlockChange>,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    let (mut ids, mut waves, mut gates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut holds, mut times) = (Vec::new(), Vec::new());
    let mut stamps = StampColumns::default();
    for ((id, wave, gate), change) in changes.iter().filter(|(_, c)| !c.holds.is_empty()) {
        ids.push(encode(id.as_str()));
        waves.push(i64::from(*wave));
        gates.push(gate.name());
        holds.push(record_json(&change.holds)?);
        times.push(column_time(change.stamp.at));
        stamps.push(&change.stamp)?;
    }
    if ids.is_empty() {
        return Ok(());
    }
    let touched = sql!("blocks_upsert")
        .execute(
            transaction,
            &[
                &ids,
                &waves,
                &gates,
                &holds,
                &times,
                &stamps.seqs,
                &stamps.indexes,
            ],
        )
        .await?;
    applied.expect(touched, ids.len());
    Ok(())
}
