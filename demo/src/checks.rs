//! What must hold at the end.

use crate::knowledge::Facts;

/// How many faults of one check are shown.
const SHOWN: usize = 5;

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// What is wrong; `None` when it holds.
    pub fault: Option<String>,
}

/// Every check.
pub fn all(facts: &Facts) -> Vec<Check> {
    vec![
        check(
            "every host converged on the fixed release",
            unconverged(facts),
        ),
        check("Postgres equals what the hosts know", facts.differences()),
        check("every accepted event is archived", unarchived(facts)),
        check("no event waits on a host", pending(facts)),
        check("no rejection of an unexpected kind", unexpected(facts)),
        check("no message was unreadable", dead_letters(facts)),
        check("no host event was refused for good", refused(facts)),
        check("no service ended by itself", facts.deaths.clone()),
    ]
}

fn check(name: &'static str, faults: Vec<String>) -> Check {
    let fault = (!faults.is_empty()).then(|| {
        let more = faults.len().saturating_sub(SHOWN);
        let mut text = faults
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ");
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        text
    });
    Check { name, fault }
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

fn unarchived(facts: &Facts) -> Vec<String> {
    let mut faults = facts.missing_in_archive();
    if facts.archive.entries != facts.archive.outcomes {
        faults.push(format!(
            "{} entries and {} outcomes are archived",
            facts.archive.entries, facts.archive.outcomes
        ));
    }
    faults
}

fn pending(facts: &Facts) -> Vec<String> {
    match facts.swarm.totals.pending_events {
        0 => Vec::new(),
        pending => vec![format!("{pending} events were never answered")],
    }
}

/// A rejection is expected when it follows from what the demo does to its hosts and services:
/// repeated or overtaken reports, and plans that the log had already moved past.
fn unexpected(facts: &Facts) -> Vec<String> {
    facts
        .archive
        .rejections
        .iter()
        .filter(|(key, _)| !is_expected(key))
        .map(|(key, count)| {
            let (event, producer, reason) = key;
            let example = facts.archive.examples.get(key).cloned().unwrap_or_default();
            format!("{count} × {event} of {producer}: {reason}, such as {example}")
        })
        .collect()
}

fn is_expected((_, producer, reason): &(String, String, String)) -> bool {
    match (producer.as_str(), reason.as_str()) {
        // Sent again after a crash, an outage or a lost answer.
        ("agent", "stale") => true,
        // The report of the host and its recovery from a heartbeat crossed in the log.
        ("agent" | "recovery", "illegal") => true,
        // A host moved, or the leader changed, while the plan was on its way.
        ("plan", "illegal" | "fenced") => true,
        _ => false,
    }
}

fn dead_letters(facts: &Facts) -> Vec<String> {
    match facts.dead_letters {
        0 => Vec::new(),
        count => vec![format!("{count} messages")],
    }
}

fn refused(facts: &Facts) -> Vec<String> {
    facts
        .swarm
        .hosts
        .iter()
        .flat_map(|(hostname, knowledge)| {
            let events = knowledge.dead_letters.iter().map(move |letter| {
                format!(
                    "{hostname}: {} {} of {} was answered {} {}",
                    letter.kind, letter.seq, letter.rollout_id, letter.status, letter.code
                )
            });
            let dispatches = knowledge.refused_dispatches.iter().map(move |refusal| {
                format!(
                    "{hostname}: refused {}: {}",
                    refusal.rollout_id, refusal.message
                )
            });
            events.chain(dispatches)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let faults = (0..8).map(|n| n.to_string()).collect();
        let text = check("x", faults).fault.unwrap();
        assert_eq!(text, "0; 1; 2; 3; 4; and 3 more");
        assert_eq!(check("x", Vec::new()).fault, None);
    }

    #[test]
    fn an_unknown_rollout_is_never_expected() {
        let key = |producer: &str, reason: &str| {
            (
                "DispatchAck".to_owned(),
                producer.to_owned(),
                reason.to_owned(),
            )
        };
        assert!(is_expected(&key("agent", "stale")));
        assert!(!is_expected(&key("agent", "unknown")));
        assert!(!is_expected(&key("agent", "invariant")));
        assert!(!is_expected(&key("plan", "invariant")));
    }
}
