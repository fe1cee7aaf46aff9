//! A digest of the final state, with which two runs can be compared.

use nixfleet_audit::ObservedState;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The state that must not depend on timing: every rollout, the records of the current rollouts, the
/// closure of each host, and the quarantined closures. The set of hosts dispatched before the bad release
/// halted depends on timing and is left out.
pub fn state(observed: &ObservedState) -> Value {
    let current = observed.current_rollouts();
    let rollouts: Vec<Value> = observed
        .rollouts
        .iter()
        .map(|(id, row)| json!([id, row.state, row.superseded_by]))
        .collect();
    let hosts: Vec<Value> = observed
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
    let closures: Vec<Value> = observed
        .swarm
        .hosts
        .iter()
        .map(|(hostname, host)| json!([hostname, host.current_closure]))
        .collect();
    json!({
        "rollouts": rollouts,
        "hosts": hosts,
        "closures": closures,
        "quarantines": observed.quarantines,
    })
}

/// SHA-256 of [`state`], lower-case hexadecimal.
pub fn of(observed: &ObservedState) -> String {
    hex::encode(Sha256::digest(state(observed).to_string()))
}
