//! What must hold at the end.

use nixfleet_audit::Facts;
use nixfleet_audit::check::{self, Check};

/// Every check; `deaths` are the services that ended by themselves.
pub fn all(facts: &Facts, deaths: &[String]) -> Vec<Check> {
    vec![
        Check::new(
            "every host converged on the fixed release",
            unconverged(facts),
        ),
        check::tables_equal_hosts(facts),
        check::archived(facts),
        check::nothing_waits(facts),
        check::rejections(facts),
        check::readable(facts),
        check::nothing_refused(facts),
        Check::new("no service ended by itself", deaths.to_vec()),
    ]
}

fn unconverged(facts: &Facts) -> Vec<String> {
    let current = facts.current_rollouts();
    let mut faults: Vec<String> = facts
        .hosts
        .iter()
        .filter(|((rollout_id, _), row)| {
            current.contains(rollout_id.as_str()) && row.state != "Converged"
        })
        .map(|((rollout_id, hostname), row)| format!("{hostname} in {rollout_id}: {}", row.state))
        .collect();
    let hosts = facts
        .hosts
        .keys()
        .filter(|(rollout_id, _)| current.contains(rollout_id.as_str()))
        .count();
    if hosts != facts.swarm.hosts.len() {
        faults.push(format!(
            "{hosts} hosts have a record, {} exist",
            facts.swarm.hosts.len()
        ));
    }
    if facts.queued > 0 {
        faults.push(format!("{} dispatches are still queued", facts.queued));
    }
    faults
}
