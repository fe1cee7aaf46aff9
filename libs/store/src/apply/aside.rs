//! What lies beside the records: quarantines, probe failures, dispatches, holds.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;
use nixfleet_proto::subject::Partition;

use super::records::StampColumns;
use crate::column_value::record_json;
use crate::error::ApplyError;
use crate::json::Json;
use crate::rows::{
    Applied, BlockChange, BlockKey, DispatchChange, DispatchRecord, FailureSet, HostKey, ProbeKey,
    TurnRows,
};
use crate::sql::sql;
use crate::text::{column_minutes, column_time, encode};

pub(super) async fn quarantines(
    transaction: &Transaction<'_>,
    partition: Partition,
    rows: &TurnRows,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    if !rows.quarantines_removed.is_empty() {
        let keys = rows.quarantines_removed.iter();
        let (channels, closures): (Vec<_>, Vec<_>) = keys
            .map(|(channel, closure)| (encode(channel.as_str()), encode(closure.as_str())))
            .unzip();
        applied.rows += sql!("quarantines_delete")
            .execute(transaction, &[&channels, &closures])
            .await?;
    }
    if rows.quarantines_inserted.is_empty() {
        return Ok(());
    }
    let (mut channels, mut closures, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut stamps = StampColumns::default();
    for ((channel, closure), stamp) in &rows.quarantines_inserted {
        channels.push(encode(channel.as_str()));
        closures.push(encode(closure.as_str()));
        times.push(column_time(stamp.at));
        stamps.push(stamp)?;
    }
    applied.rows += sql!("quarantines_insert")
        .execute(
            transaction,
            &[
                &i32::from(partition.number()),
                &channels,
                &closures,
                &times,
                &stamps.seqs,
                &stamps.indexes,
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn probe_failures(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<ProbeKey, FailureSet>,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    if changes.is_empty() {
        return Ok(());
    }
    let (mut ids, mut hostnames, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    for (id, hostname, probe) in changes.keys() {
        ids.push(encode(id.as_str()));
        hostnames.push(encode(hostname.as_str()));
        probes.push(encode(probe.as_str()));
    }
    applied.rows += sql!("probe_failures_delete")
        .execute(transaction, &[&ids, &hostnames, &probes])
        .await?;
    let failing = changes.iter().filter(|(_, set)| !set.failures.is_empty());
    insert_failures(transaction, failing, applied).await
}

async fn insert_failures(
    transaction: &Transaction<'_>,
    changes: impl Iterator<Item = (&ProbeKey, &FailureSet)>,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let (mut ids, mut hostnames, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ordinals, mut controls, mut frameworks) = (Vec::new(), Vec::new(), Vec::new());
    let mut times = Vec::new();
    let mut stamps = StampColumns::default();
    for ((id, hostname, probe), set) in changes {
        let failures: BTreeSet<_> = set.failures.iter().collect();
        for (ordinal, failure) in (0_i32..).zip(failures) {
            ids.push(encode(id.as_str()));
            hostnames.push(encode(hostname.as_str()));
            probes.push(encode(probe.as_str()));
            ordinals.push(ordinal);
            controls.push(failure.control_id.as_deref().map(encode));
            frameworks.push(failure.framework.as_deref().map(encode));
            times.push(column_time(set.observed_at));
            stamps.push_position(set.stamp.position)?;
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    let touched = sql!("probe_failures_insert")
        .execute(
            transaction,
            &[
                &ids,
                &hostnames,
                &probes,
                &ordinals,
                &controls,
                &frameworks,
                &times,
                &stamps.seqs,
                &stamps.indexes,
            ],
        )
        .await?;
    applied.expect(touched, ids.len());
    Ok(())
}

pub(super) async fn dispatches(
    transaction: &Transaction<'_>,
    rows: &TurnRows,
    applied: &mut Applied,
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
    applied: &mut Applied,
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

pub(super) async fn blocks(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<BlockKey, BlockChange>,
    applied: &mut Applied,
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
    applied: &mut Applied,
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
