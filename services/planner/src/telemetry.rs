//! Metrics of the planner.

use nixfleet_plan::{FleetView, Plan};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Gate, Outcome, Timestamp};

const SERVICE: &str = "planner";

/// Sets the number of messages that the view of a partition is behind.
pub fn set_lag(partition: Partition, messages: u64) {
    let partition = partition.to_string();
    metrics::gauge!("nixfleet_partition_lag_messages", "service" => SERVICE, "partition" => partition)
        .set(messages as f64);
}

/// Reports the actions and blocks of a plan and its CPU time in seconds.
pub fn report_plan(plan: &Plan, seconds: f64) {
    metrics::histogram!("nixfleet_plan_seconds").record(seconds);
    for gate in Gate::ALL {
        let held = plan.held.get(&gate).copied().unwrap_or(0);
        metrics::gauge!("nixfleet_gate_blocks", "gate" => gate.name()).set(held as f64);
    }
    for action in &plan.actions {
        metrics::counter!("nixfleet_plan_actions_total", "action" => action.name()).increment(1);
    }
}

/// Counts the outcome of an action of this leader.
pub fn count_outcome(outcome: &Outcome) {
    let action = outcome.subject.entry.clone();
    let decision = outcome.decision.name();
    metrics::counter!("nixfleet_plan_outcomes_total", "action" => action, "decision" => decision)
        .increment(1);
}

pub fn report_turn(entries: usize, seconds: f64) {
    metrics::histogram!("nixfleet_turn_entries", "service" => SERVICE).record(entries as f64);
    metrics::histogram!("nixfleet_turn_seconds", "service" => SERVICE).record(seconds);
}

pub fn count_fenced() {
    metrics::counter!("nixfleet_fence_rejections_total", "service" => SERVICE).increment(1);
}

/// Sets whether nothing is planned for the channels of a partition.
pub fn set_held(partition: Partition, is_held: bool) {
    let partition = partition.to_string();
    metrics::gauge!("nixfleet_planner_partition_held", "partition" => partition).set(if is_held {
        1.0
    } else {
        0.0
    });
}

/// Sets whether this instance leads, and its epoch.
pub fn set_leading(epoch: Option<u64>) {
    metrics::gauge!("nixfleet_planner_leading").set(if epoch.is_some() { 1.0 } else { 0.0 });
    if let Some(epoch) = epoch {
        metrics::gauge!("nixfleet_planner_epoch").set(epoch as f64);
    }
}

/// Sets the age of the manifest of every channel.
pub fn set_manifest_ages(view: &FleetView, now: Timestamp) {
    let Some(release) = view.release() else {
        return;
    };
    for (channel, of_channel) in release.manifests() {
        let Some(signed_at) = of_channel.manifest.meta.signed_at else {
            continue;
        };
        let age = (now - signed_at).num_seconds();
        let channel = channel.to_string();
        metrics::gauge!("nixfleet_manifest_age_seconds", "channel" => channel).set(age as f64);
    }
}

pub fn count_refusal(faults: &[String]) {
    for fault in faults {
        metrics::counter!("nixfleet_manifest_refusals_total", "fault" => fault.clone())
            .increment(1);
    }
}

pub fn count_poll(result: &'static str) {
    metrics::counter!("nixfleet_manifest_polls_total", "result" => result).increment(1);
}
