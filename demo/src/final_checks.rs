//! Checks of the final state.

use nixfleet_audit::ObservedState;
use nixfleet_audit::check::{self, Check};

/// Every check; `unexpected_exits` are the services that ended by themselves.
pub fn all(observed: &ObservedState, unexpected_exits: &[String]) -> Vec<Check> {
    vec![
        Check::new(
            "every host converged on the fixed release",
            unconverged(observed),
        ),
        check::tables_equal_hosts(observed),
        check::archived(observed),
        check::nothing_waits(observed),
        check::rejections(observed),
        check::readable(observed),
        check::nothing_refused(observed),
        Check::new("no service ended by itself", unexpected_exits.to_vec()),
    ]
}

fn unconverged(observed: &ObservedState) -> Vec<String> {
    let current = observed.current_rollouts();
    let mut faults: Vec<String> = observed
        .hosts
        .iter()
        .filter(|((rollout_id, _), row)| {
            current.contains(rollout_id.as_str()) && row.state != "Converged"
        })
        .map(|((rollout_id, hostname), row)| format!("{hostname} in {rollout_id}: {}", row.state))
        .collect();
    let hosts = observed
        .hosts
        .keys()
        .filter(|(rollout_id, _)| current.contains(rollout_id.as_str()))
        .count();
    if hosts != observed.swarm.hosts.len() {
        faults.push(format!(
            "{hosts} hosts have a record, {} exist",
            observed.swarm.hosts.len()
        ));
    }
    if observed.queued > 0 {
        faults.push(format!("{} dispatches are still queued", observed.queued));
    }
    faults
}
