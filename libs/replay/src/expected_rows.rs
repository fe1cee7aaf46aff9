//! Expected rows of a replayed state, by table, in the order of their keys.

use std::sync::Arc;

use nixfleet_core::partition::{GateHolds, Rollout, RolloutHost};
use nixfleet_proto::fleet::ResolvedBudget;
use nixfleet_proto::host::FailedControl;
use nixfleet_proto::rollout::PinnedWave;
use nixfleet_proto::{OnHealthFailure, Pinned, RolloutId};
use serde::Serialize;

use crate::replay::Replay;
use crate::row::{Row, column_micros};

/// Tables that derive from the log, in the order of comparison. Excludes `hosts`, which derives from
/// heartbeats.
pub const TABLES: [&str; 7] = [
    "partition_cursors",
    "rollouts",
    "host_rollout_records",
    "quarantined_closures",
    "probe_failures",
    "dispatch_queue",
    "gate_blocks",
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Terms<'a> {
    on_health_failure: OnHealthFailure,
    waves: &'a [PinnedWave],
    disruption_budgets: &'a [ResolvedBudget],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DispatchColumn<'a> {
    target_closure: &'a nixfleet_proto::ClosureHash,
    soak_minutes: nixfleet_proto::minutes::Minutes,
    enqueued_at: nixfleet_proto::Timestamp,
}

/// The cursor of the partition, without the message id and the creation time of the stream, which only the
/// applier knows.
pub fn cursor(replay: &Replay, partition: u16) -> impl Iterator<Item = Row> {
    let row = (replay.out_seq() > 0).then(|| {
        Row::new([&partition.to_string()])
            .with("outSeq", replay.out_seq())
            .with("input", replay.last_input())
            .with("epoch", replay.epoch())
            .with("leaderEpoch", replay.state().leader_epoch())
            .with("clock", replay.clock())
    });
    row.into_iter()
}

/// Rows of `rollouts`.
pub fn rollouts(replay: &Replay) -> impl Iterator<Item = Row> {
    replay.state().rollouts().iter().map(|(id, rollout)| {
        Row::new([id.as_str()])
            .with("record", &rollout.record)
            .with("manifestHash", &rollout.manifest_hash)
            .with("hostCount", rollout.pinned.host_set.len())
            .with("waveCount", rollout.pinned.waves.len())
            .with("onHealthFailure", rollout.pinned.on_health_failure)
            .with("pinned", terms(&rollout.pinned))
            .at(rollout.position)
    })
}

/// The pinned terms without the hosts.
fn terms(pinned: &Pinned) -> Terms<'_> {
    Terms {
        on_health_failure: pinned.on_health_failure,
        waves: &pinned.waves,
        disruption_budgets: &pinned.disruption_budgets,
    }
}

/// Rows of `host_rollout_records` of one rollout; none for an unknown rollout.
pub fn hosts<'a>(
    replay: &'a Replay,
    rollout_id: &'a RolloutId,
) -> impl Iterator<Item = Row> + use<'a> {
    hosts_of(replay, rollout_id).map(|host| {
        Row::new([rollout_id.as_str(), host.record.hostname.as_str()])
            .with("record", &host.record)
            .with("wave", host.wave)
            .with("staged", host.staged)
            .with("recoveryCandidate", host.recovery_candidate())
            .at(host.position)
    })
}

/// Rows of `quarantined_closures`.
pub fn quarantines(replay: &Replay) -> impl Iterator<Item = Row> {
    let all = replay.state().quarantines().iter();
    let all = all.flat_map(|(channel, closures)| closures.iter().map(move |c| (channel, c)));
    all.map(|(channel, (closure, cause))| {
        Row::new([channel.as_str(), closure.as_str()])
            .with("quarantinedAt", column_micros(cause.at))
            .at(cause.position)
    })
}

/// Rows of `probe_failures` of one rollout.
pub fn probe_failures<'a>(
    replay: &'a Replay,
    rollout_id: &'a RolloutId,
) -> impl Iterator<Item = Row> + use<'a> {
    let hosts = hosts_of(replay, rollout_id);
    let probes = hosts.flat_map(|host| {
        let probes = host.probe_failures();
        probes.map(move |(probe, failures)| (&host.record.hostname, probe, failures))
    });
    probes.flat_map(move |(hostname, probe, failures)| {
        let numbered = failures.controls.iter().enumerate();
        numbered.map(move |(ordinal, control)| {
            let FailedControl {
                control_id,
                framework,
            } = control;
            let ordinal = format!("{ordinal:010}");
            Row::new([
                rollout_id.as_str(),
                hostname.as_str(),
                probe.as_str(),
                &ordinal,
            ])
            .with("controlId", control_id)
            .with("framework", framework)
            .with("observedAt", column_micros(failures.cause.at))
            .at(failures.cause.position)
        })
    })
}

/// Rows of `dispatch_queue` of one rollout.
pub fn dispatches<'a>(
    replay: &'a Replay,
    rollout_id: &'a RolloutId,
) -> impl Iterator<Item = Row> + use<'a> {
    let queued = hosts_of(replay, rollout_id).filter_map(|host| Some((host, host.queued()?)));
    queued.map(|(host, queued)| {
        let record = DispatchColumn {
            target_closure: &host.record.target_closure,
            soak_minutes: host.record.soak_minutes,
            enqueued_at: queued.at,
        };
        Row::new([rollout_id.as_str(), host.record.hostname.as_str()])
            .with("record", &record)
            .at(queued.position)
    })
}

/// Rows of `gate_blocks` of one rollout, by wave and the name of the gate.
pub fn blocks(replay: &Replay, rollout_id: &RolloutId) -> Vec<Row> {
    let Some(rollout) = replay.state().rollout(rollout_id) else {
        return Vec::new();
    };
    let mut blocks: Vec<_> = rollout.blocks.iter().collect();
    // The state orders gates by check, the table by name.
    blocks.sort_by_key(|((wave, gate), _)| (*wave, gate.name()));
    let row = |((wave, gate), held): (&(u32, nixfleet_proto::Gate), &Arc<GateHolds>)| {
        Row::new([rollout_id.as_str(), &format!("{wave:010}"), gate.name()])
            .with("holds", &held.holds)
            .with("observedAt", column_micros(held.cause.at))
            .at(held.cause.position)
    };
    blocks.into_iter().map(row).collect()
}

/// The hosts of one rollout; none for an unknown rollout.
fn hosts_of<'a>(
    replay: &'a Replay,
    rollout_id: &RolloutId,
) -> impl Iterator<Item = &'a RolloutHost> + use<'a> {
    let rollout: Option<&Rollout> = replay.state().rollout(rollout_id);
    rollout
        .into_iter()
        .flat_map(|rollout| rollout.hosts.values())
}
