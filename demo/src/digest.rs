//! One value for the final state, so that two runs can be compared.

use nixfleet_audit::Facts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The part of the state that must not depend on timing: every rollout, the records of the current
/// ones, what each host runs, and the quarantined closures. Which hosts of the bad release had been
/// dispatched when it halted depends on timing and is left out.
pub fn state(facts: &Facts) -> Value {
    let current = facts.current_rollouts();
    let rollouts: Vec<Value> = facts
        .rollouts
        .iter()
        .map(|(id, row)| json!([id, row.state, row.superseded_by]))
        .collect();
    let hosts: Vec<Value> = facts
        .hosts
        .iter()
        .filter(|((rollout_id, _), _)| current.contains(rollout_id.as_str()))
        .map(|((rollout_id, hostname), row)| {
            json!([
                rollout_id,
                hostname,
                row.wave,
                row.state,
                row.target_closure,
                row.current_closure
            ])
        })
        .collect();
    let closures: Vec<Value> = facts
        .swarm
        .hosts
        .iter()
        .map(|(hostname, knowledge)| json!([hostname, knowledge.current_closure]))
        .collect();
    json!({
        "rollouts": rollouts,
        "hosts": hosts,
        "closures": closures,
        "quarantines": facts.quarantines,
    })
}

/// SHA-256 of [`state`], lower-case hexadecimal.
pub fn of(facts: &Facts) -> String {
    hex::encode(Sha256::digest(state(facts).to_string()))
}
