//! The `debug plan` command: one case as JSON in, the plan and its report as JSON out.
//!
//! Assumes verified fleet and manifests. Drops rows of rollouts that the case does not list.
//!
//! Source: docs/debug-commands.md, plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::host::FailedControl;
use nixfleet_proto::snapshot::{
    Cause, HostRow, PartitionSnapshot, ProbeFailureRow, QuarantineRow, RolloutRow,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, ClosureHash, HostRecord, Hostname, ManifestHash, Pinned, PlanAction, Position,
    ProbeName, RolloutId, RolloutRecord, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::host_report::HostReport;
use crate::plan::explain;
use crate::release::{ChannelManifest, Release};
use crate::view::{FleetView, LoadError, PinnedSet};

/// The line is not a valid case.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum CaseError {
    #[error("the line is not a planner case")]
    Input(#[source] serde_json::Error),
    #[error("the rows of the case are inconsistent")]
    Load(#[source] LoadError),
    #[error("the plan has no JSON form")]
    Output(#[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    fleet: Fleet,
    manifests: Option<BTreeMap<ChannelName, RolloutManifest>>,
    rollouts: Option<Vec<Rollout>>,
    hosts: Option<Vec<HostRecord>>,
    quarantines: Option<Vec<Quarantine>>,
    probe_failures: Option<Vec<ProbeFailure>>,
    dispatches: Option<Vec<Dispatch>>,
    recovery_candidates: Option<Vec<RecoveryCandidate>>,
    now: Timestamp,
}

#[derive(Deserialize)]
struct Rollout {
    #[serde(flatten)]
    record: RolloutRecord,
    pinned: Pinned,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quarantine {
    channel: ChannelName,
    closure_hash: ClosureHash,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProbeFailure {
    rollout_id: RolloutId,
    hostname: Hostname,
    probe_name: ProbeName,
    #[serde(flatten)]
    control: FailedControl,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dispatch {
    rollout_id: RolloutId,
    hostname: Hostname,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecoveryCandidate {
    rollout_id: RolloutId,
    hostname: Hostname,
    current_closure: ClosureHash,
}

#[derive(Serialize)]
struct PlanResult {
    actions: Vec<PlanAction>,
    report: Vec<HostReport>,
}

/// Evaluates one line.
pub fn plan_line(line: &str) -> Result<String, CaseError> {
    let mut case: Case = serde_json::from_str(line).map_err(CaseError::Input)?;
    let release = release_of(&mut case);
    let now = case.now;
    let snapshot = rows_of(case);
    let mut view = FleetView::new();
    view.set_release(release);
    view.load(Partition::new(0), snapshot, &PinnedSet::new())
        .map_err(CaseError::Load)?;
    let (plan, report) = explain(&view, now);
    let mut actions = plan.actions;
    actions.retain(|action| !matches!(action, PlanAction::BlocksChanged { .. }));
    serde_json::to_string(&PlanResult { actions, report }).map_err(CaseError::Output)
}

fn release_of(case: &mut Case) -> Release {
    let manifests = case.manifests.take().unwrap_or_default();
    let manifests = manifests.into_iter().map(|(channel, manifest)| {
        let of_channel = ChannelManifest {
            manifest: Arc::new(manifest),
            // Not used to load anything.
            hash: ManifestHash::from(""),
        };
        (channel, of_channel)
    });
    Release::new(Arc::new(case.fleet.clone()), manifests.collect())
}

fn rows_of(case: Case) -> PartitionSnapshot {
    let position = Position::default();
    let mut rollouts = Vec::new();
    let mut known = BTreeSet::new();
    for (number, rollout) in case.rollouts.unwrap_or_default().into_iter().enumerate() {
        let manifest_hash = ManifestHash::from(number.to_string());
        known.insert(rollout.record.rollout_id.clone());
        rollouts.push(RolloutRow {
            record: rollout.record,
            manifest_hash,
            pinned: Some(Arc::new(rollout.pinned)),
            position,
        });
    }
    let queued: BTreeSet<_> = case
        .dispatches
        .unwrap_or_default()
        .into_iter()
        .map(|row| (row.rollout_id, row.hostname))
        .collect();
    let candidates: BTreeMap<_, _> = case
        .recovery_candidates
        .unwrap_or_default()
        .into_iter()
        .map(|row| ((row.rollout_id, row.hostname), row.current_closure))
        .collect();
    let cause = Cause {
        position,
        at: case.now,
    };
    let hosts = case.hosts.unwrap_or_default().into_iter();
    let hosts = hosts
        .filter(|record| known.contains(&record.rollout_id))
        .map(|record| {
            let key = (record.rollout_id.clone(), record.hostname.clone());
            HostRow {
                queued: queued.contains(&key).then_some(cause),
                recovery_candidate: candidates.get(&key).cloned(),
                record: record.into(),
                position,
            }
        });
    let quarantines = case.quarantines.unwrap_or_default().into_iter();
    let failures = case.probe_failures.unwrap_or_default().into_iter();
    let failures = failures.filter(|row| known.contains(&row.rollout_id));
    PartitionSnapshot {
        cursor: None,
        hosts: hosts.collect(),
        rollouts,
        quarantines: quarantines
            .map(|row| QuarantineRow {
                channel: row.channel,
                closure_hash: row.closure_hash,
                cause,
            })
            .collect(),
        probe_failures: failures
            .map(|row| ProbeFailureRow {
                rollout_id: row.rollout_id,
                hostname: row.hostname,
                probe_name: row.probe_name,
                control: row.control,
                cause,
            })
            .collect(),
        blocks: Vec::new(),
    }
}
