//! What the planner counts.

use nixfleet_plan::{FleetView, Plan};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Gate, Outcome, Timestamp};

const SERVICE: &str = "planner";

/// States how far behind one partition's view is, in messages.
pub fn lag(partition: Partition, messages: u64) {
    let partition = partition.to_string();
    metrics::gauge!("nixfleet_partition_lag_messages", "service" => SERVICE, "partition" => partition)
        .set(messages as f64);
}

/// States what a plan decided and how long it took.
pub fn plan(plan: &Plan, seconds: f64) {
    metrics::histogram!("nixfleet_plan_seconds").record(seconds);
    for gate in Gate::ALL {
        let held = plan.held.get(&gate).copied().unwrap_or(0);
        metrics::gauge!("nixfleet_gate_blocks", "gate" => gate.name()).set(held as f64);
    }
    for action in &plan.actions {
        metrics::counter!("nixfleet_plan_actions_total", "action" => action.name()).increment(1);
    }
}

/// Counts what became of one of this leader's actions.
pub fn outcome(outcome: &Outcome) {
    let action = outcome.subject.entry.clone();
    let decision = outcome.decision.name();
    metrics::counter!("nixfleet_plan_outcomes_total", "action" => action, "decision" => decision)
        .increment(1);
}

/// States a turn that put actions into the log.
pub fn turn(entries: usize, seconds: f64) {
    metrics::histogram!("nixfleet_turn_entries", "service" => SERVICE).record(entries as f64);
    metrics::histogram!("nixfleet_turn_seconds", "service" => SERVICE).record(seconds);
}

/// Counts a newer leader seen.
pub fn fenced() {
    metrics::counter!("nixfleet_fence_rejections_total", "service" => SERVICE).increment(1);
}

/// States whether this instance leads.
pub fn leading(epoch: Option<u64>) {
    metrics::gauge!("nixfleet_planner_leading").set(if epoch.is_some() { 1.0 } else { 0.0 });
    if let Some(epoch) = epoch {
        metrics::gauge!("nixfleet_planner_epoch").set(epoch as f64);
    }
}

/// States how old the manifest of every channel is.
pub fn manifest_ages(view: &FleetView, now: Timestamp) {
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

/// Counts a release that was refused, once per fault.
pub fn refused(faults: &[String]) {
    for fault in faults {
        metrics::counter!("nixfleet_manifest_refusals_total", "fault" => fault.clone())
            .increment(1);
    }
}

/// Counts a poll by its result.
pub fn polled(result: &'static str) {
    metrics::counter!("nixfleet_manifest_polls_total", "result" => result).increment(1);
}
