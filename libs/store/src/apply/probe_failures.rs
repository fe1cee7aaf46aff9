//! Writing the outstanding failures of probes.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;

use super::record_updates::StampColumns;
use crate::apply::apply_result::ApplyResult;
use crate::error::ApplyError;
use crate::parameter_encoding::column_value::column_time;
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use nixfleet_proto::turn_rows::{FailureSet, ProbeKey};

pub(super) async fn probe_failures(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<ProbeKey, FailureSet>,
    applied: &mut ApplyResult,
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
    applied: &mut ApplyResult,
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
