//! Writing the queue of dispatches.

use deadpool_postgres::Transaction;

use super::record_updates::StampColumns;
use crate::apply::apply_result::ApplyResult;
use crate::error::ApplyError;
use crate::parameter_encoding::column_value::{column_minutes, column_time, record_json};
use crate::parameter_encoding::json_parameter::Json;
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use crate::stored_json::DispatchRecord;
use nixfleet_proto::turn_rows::{DispatchChange, HostKey, TurnRows};

pub(super) async fn dispatches(
    transaction: &Transaction<'_>,
    rows: &TurnRows,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    if !rows.dispatches_cancelled.is_empty() {
        let cancelled = rows.dispatches_cancelled.iter();
        let ids: Vec<_> = cancelled.map(|id| encode(id.as_str())).collect();
        applied.rows += sql!("dispatches_cancel")
            .execute(transaction, &[&ids])
            .await?;
    }
    let removed = rows
        .dispatches
        .iter()
        .filter(|(_, change)| change.is_none());
    let (ids, hostnames): (Vec<_>, Vec<_>) = removed
        .map(|((id, hostname), _)| (encode(id.as_str()), encode(hostname.as_str())))
        .unzip();
    if !ids.is_empty() {
        applied.rows += sql!("dispatches_delete")
            .execute(transaction, &[&ids, &hostnames])
            .await?;
    }
    let queued = rows.dispatches.iter();
    let queued = queued.filter_map(|(key, change)| Some((key, change.as_ref()?)));
    upsert_dispatches(transaction, queued, applied).await
}

async fn upsert_dispatches(
    transaction: &Transaction<'_>,
    queued: impl Iterator<Item = (&HostKey, &DispatchChange)>,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    let (mut ids, mut hostnames, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut closures, mut soaks, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut stamps = StampColumns::default();
    for ((id, hostname), change) in queued {
        ids.push(encode(id.as_str()));
        hostnames.push(encode(hostname.as_str()));
        records.push(Json(record_json(&DispatchRecord {
            target_closure: change.target_closure.clone(),
            soak_minutes: change.soak_minutes,
            enqueued_at: change.stamp.at,
        })?));
        closures.push(encode(change.target_closure.as_str()));
        soaks.push(column_minutes(change.soak_minutes));
        times.push(column_time(change.stamp.at));
        stamps.push(&change.stamp)?;
    }
    if ids.is_empty() {
        return Ok(());
    }
    let touched = sql!("dispatches_upsert")
        .execute(
            transaction,
            &[
                &ids,
                &hostnames,
                &records,
                &stamps.seqs,
                &stamps.indexes,
                &stamps.traceparents,
                &closures,
                &soaks,
                &times,
            ],
        )
        .await?;
    applied.expect(touched, ids.len());
    Ok(())
}
