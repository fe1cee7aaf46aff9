//! Metrics and logs of a turn, all derived from its outcomes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Entry, EntryBody, HostEventBody, Outcome, Position, Reason};
use nixfleet_reducer::Ended;

/// Name of the service on the bus and in metrics.
pub const SERVICE: &str = "reducer";

/// What is said of a frame once it is published.
#[derive(Debug, Default)]
pub struct Told {
    /// Its outcomes.
    pub entries: usize,
    /// By verdict and entry: looking a counter up costs more than counting.
    counts: BTreeMap<(&'static str, Cow<'static, str>), u64>,
    rejected: Vec<Outcome>,
}

impl Told {
    /// Of a frame's outcomes.
    pub fn of(outcomes: Vec<Outcome>) -> Self {
        let mut told = Self {
            entries: outcomes.len(),
            ..Self::default()
        };
        for outcome in outcomes {
            let of = (outcome.decision.name(), outcome.subject.entry.clone());
            *told.counts.entry(of).or_default() += 1;
            if matches!(outcome.decision, Decision::Rejected(_)) {
                told.rejected.push(outcome);
            }
        }
        told
    }
}

/// Counts a published frame.
pub fn published(told: &Told, took: Duration) {
    histogram!("nixfleet_turn_seconds", "service" => SERVICE).record(took);
    histogram!("nixfleet_turn_entries", "service" => SERVICE).record(told.entries as f64);
    for ((decision, entry), count) in &told.counts {
        let entry = entry.clone().into_owned();
        counter!("nixfleet_outcomes_total", "verdict" => *decision, "entry" => entry)
            .increment(*count);
    }
    told.rejected.iter().for_each(rejected);
}

fn rejected(outcome: &Outcome) {
    let Decision::Rejected(rejection) = &outcome.decision else {
        return;
    };
    counter!("nixfleet_rejections_total", "reason" => rejection.reason.name()).increment(1);
    let Position { seq, index } = outcome.position;
    let subject = &outcome.subject;
    let (rollout, host) = (&subject.rollout_id, &subject.hostname);
    let (entry, event) = (&*subject.entry, subject.event.as_deref());
    match rejection.reason {
        // Agents repeat what they are not sure of, and planners are replaced.
        Reason::Stale | Reason::Fenced => {
            tracing::debug!(seq, index, entry, event, ?rollout, ?host, %rejection, "rejected");
        }
        Reason::Illegal | Reason::Invariant | Reason::Unknown => {
            tracing::info!(seq, index, entry, event, ?rollout, ?host, %rejection, "rejected");
        }
    }
}

/// Says when a host applied another policy than the one pinned into its rollout.
pub fn policy_mismatch(state: &PartitionState, entry: &Entry) {
    let EntryBody::HostEvent {
        rollout_id,
        hostname,
        event,
        ..
    } = &entry.body
    else {
        return;
    };
    let HostEventBody::Failed { policy_applied, .. } = &event.body else {
        return;
    };
    if let Some(rollout) = state.rollout(rollout_id)
        && rollout.pinned.on_health_failure != *policy_applied
    {
        counter!("nixfleet_policy_mismatches_total").increment(1);
        tracing::warn!(rollout = %rollout_id, host = %hostname,
            applied = policy_applied.name(), pinned = rollout.pinned.on_health_failure.name(),
            "a host applied another policy than its rollout has");
    }
}

/// Input messages that wait behind the last one read.
pub fn lag(partition: Partition, waiting: u64) {
    gauge!("nixfleet_partition_lag_entries",
        "service" => SERVICE, "partition" => partition.to_string())
    .set(waiting as f64);
}

/// Whether this process owns the partition.
pub fn owned(partition: Partition, owned: bool) {
    gauge!("nixfleet_partition_owned",
        "service" => SERVICE, "partition" => partition.to_string())
    .set(f64::from(u8::from(owned)));
}

/// Counts the end of an ownership.
pub fn ended(partition: Partition, ended: &Ended) {
    counter!("nixfleet_ownerships_ended_total", "reason" => ended.name()).increment(1);
    match ended {
        Ended::Released => tracing::info!(%partition, "released"),
        Ended::Fenced => {
            counter!("nixfleet_fence_rejections_total", "service" => SERVICE).increment(1);
            tracing::warn!(%partition, "another owner published; the state here is dropped");
        }
        Ended::Failed(error) => {
            tracing::warn!(%partition, error = format!("{error:#}"), "starting over");
        }
        Ended::Halted(error) => {
            tracing::error!(%partition, error = format!("{error:#}"), "the partition stopped");
        }
    }
}
