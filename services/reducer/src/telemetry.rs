//! Metrics and logs of turns and ownerships.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Entry, EntryBody, HostEventBody, Outcome, Position, Reason};
use nixfleet_reducer::OwnershipEnd;

/// Name of the service on the bus and in metrics.
pub const SERVICE: &str = "reducer";

/// Counts of one frame, reported once it is published.
#[derive(Debug, Default)]
pub struct FrameSummary {
    pub entries: usize,
    /// Outcomes by verdict and entry: one lookup of a counter costs more than counting.
    counts: BTreeMap<(&'static str, Cow<'static, str>), u64>,
    rejected: Vec<Outcome>,
}

impl FrameSummary {
    /// Summarises the outcomes of a frame.
    pub fn of(outcomes: Vec<Outcome>) -> Self {
        let mut summary = Self {
            entries: outcomes.len(),
            ..Self::default()
        };
        for outcome in outcomes {
            let of = (outcome.decision.name(), outcome.subject.entry.clone());
            *summary.counts.entry(of).or_default() += 1;
            if matches!(outcome.decision, Decision::Rejected(_)) {
                summary.rejected.push(outcome);
            }
        }
        summary
    }
}

/// Reports a published frame.
pub fn frame_published(summary: &FrameSummary, took: Duration) {
    histogram!("nixfleet_turn_seconds", "service" => SERVICE).record(took);
    histogram!("nixfleet_turn_entries", "service" => SERVICE).record(summary.entries as f64);
    for ((decision, entry), count) in &summary.counts {
        let entry = entry.clone().into_owned();
        counter!("nixfleet_outcomes_total", "decision" => *decision, "entry" => entry)
            .increment(*count);
    }
    summary.rejected.iter().for_each(rejected);
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
        // Agents repeat reports, and planners are replaced.
        Reason::Stale | Reason::Fenced => {
            tracing::debug!(seq, index, entry, event, ?rollout, ?host, %rejection, "rejected");
        }
        Reason::Unsigned => {
            tracing::warn!(seq, index, entry, actor = ?subject.actor, %rejection, "rejected");
        }
        Reason::Illegal | Reason::Invariant | Reason::Unknown => {
            tracing::info!(seq, index, entry, event, ?rollout, ?host, %rejection, "rejected");
        }
        Reason::Clock => {
            tracing::warn!(seq, index, entry, event, ?rollout, ?host, %rejection, "rejected");
        }
    }
}

/// Reports a host that applied another policy than the one pinned into its rollout.
pub fn report_policy_mismatch(state: &PartitionState, entry: &Entry) {
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

/// Sets the number of input messages behind the last one read.
pub fn set_lag(partition: Partition, waiting: u64) {
    gauge!("nixfleet_partition_lag_messages",
        "service" => SERVICE, "partition" => partition.to_string())
    .set(waiting as f64);
}

/// Sets whether this process owns the partition.
pub fn set_owned(partition: Partition, owned: bool) {
    gauge!("nixfleet_partition_owned",
        "service" => SERVICE, "partition" => partition.to_string())
    .set(f64::from(u8::from(owned)));
}

/// Reports the end of an ownership.
pub fn ownership_ended(partition: Partition, end: &OwnershipEnd) {
    counter!("nixfleet_ownerships_ended_total", "reason" => end.name()).increment(1);
    match end {
        OwnershipEnd::Released => tracing::info!(%partition, "released the partition"),
        OwnershipEnd::Fenced => {
            counter!("nixfleet_fence_rejections_total", "service" => SERVICE).increment(1);
            tracing::warn!(%partition, "another owner published; the state here is dropped");
        }
        OwnershipEnd::Failed(error) => {
            tracing::warn!(%partition, error = format!("{error:#}"), "the ownership failed; starting over");
        }
        OwnershipEnd::Halted(error) => {
            tracing::error!(%partition, error = format!("{error:#}"), "the partition stopped until an operator acts");
        }
    }
}
