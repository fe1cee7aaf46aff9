//! Checks of the final state that hold for any rollout.

use serde_json::{Value, json};

use crate::ObservedState;

/// Faults of one check that are shown.
const SHOWN: usize = 5;

/// A named check and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The rule.
    pub name: &'static str,
    /// Violations of the rule; `None` when the check passed.
    pub fault: Option<String>,
}

impl Check {
    /// A check that passes without faults; lists only the first faults.
    pub fn new(name: &'static str, faults: Vec<String>) -> Self {
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
        Self { name, fault }
    }

    /// The result as a line of text.
    pub fn line(&self) -> String {
        match &self.fault {
            None => format!("ok    {}", self.name),
            Some(fault) => format!("FAIL  {}: {fault}", self.name),
        }
    }

    /// The result as JSON.
    pub fn document(&self) -> Value {
        json!({"name": self.name, "holds": self.fault.is_none(), "fault": self.fault})
    }
}

/// True when every check holds.
pub fn all_hold(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.fault.is_none())
}

/// The tables agree with every host about its state.
pub fn tables_equal_hosts(observed: &ObservedState) -> Check {
    Check::new(
        "Postgres equals the state of the hosts",
        observed.differences(),
    )
}

/// The archive contains every event with a 2xx response, and as many outcomes as entries.
pub fn archived(observed: &ObservedState) -> Check {
    Check::new("every accepted event is archived", unarchived(observed))
}

/// No host has unacknowledged events.
pub fn nothing_waits(observed: &ObservedState) -> Check {
    Check::new("no event waits on a host", pending(observed))
}

/// Entries were rejected for reasons only that follow from crashes, outages and repetitions.
pub fn rejections(observed: &ObservedState) -> Check {
    Check::new("no rejection of an unexpected kind", unexpected(observed))
}

/// No message was moved to the dead-letter stream.
pub fn readable(observed: &ObservedState) -> Check {
    Check::new("no message was unreadable", dead_letters(observed))
}

/// No event of a host was refused permanently, and no host refused a dispatch.
pub fn nothing_refused(observed: &ObservedState) -> Check {
    Check::new("no host event was refused for good", refused(observed))
}

fn unarchived(observed: &ObservedState) -> Vec<String> {
    let mut faults = observed.missing_in_archive();
    if observed.archive.entries != observed.archive.outcomes {
        faults.push(format!(
            "{} entries and {} outcomes are archived",
            observed.archive.entries, observed.archive.outcomes
        ));
    }
    faults
}

fn pending(observed: &ObservedState) -> Vec<String> {
    match observed.swarm.totals.pending_events {
        0 => Vec::new(),
        pending => vec![format!("{pending} events were never acknowledged")],
    }
}

/// A rejection is expected when it follows from what happens to hosts and services:
/// repeated or overtaken reports, and plans that the log had already moved past.
fn unexpected(observed: &ObservedState) -> Vec<String> {
    observed
        .archive
        .rejections
        .iter()
        .filter(|(key, _)| !is_expected(key))
        .map(|(key, count)| {
            let (event, producer, reason) = key;
            let example = observed
                .archive
                .examples
                .get(key)
                .cloned()
                .unwrap_or_default();
            format!("{count} × {event} of {producer}: {reason}, such as {example}")
        })
        .collect()
}

fn is_expected((event, producer, reason): &(String, String, String)) -> bool {
    match (producer.as_str(), reason.as_str()) {
        // A deferred host of the wave returned before the plan was folded, which invalidates the advance
        // and the dispatches that depend on it.
        ("plan", "invariant") => matches!(event.as_str(), "AdvanceWave" | "QueueDispatch"),
        // A retry after a crash, an outage or a lost response.
        ("agent", "stale") => true,
        // The report of the host and its recovery from a heartbeat crossed in the log.
        ("agent" | "recovery", "illegal") => true,
        // A host changed state, or the leader changed, before the plan was folded.
        ("plan", "illegal" | "fenced") => true,
        _ => false,
    }
}

fn dead_letters(observed: &ObservedState) -> Vec<String> {
    match observed.dead_letters {
        0 => Vec::new(),
        count => vec![format!("{count} messages")],
    }
}

fn refused(observed: &ObservedState) -> Vec<String> {
    observed
        .swarm
        .hosts
        .iter()
        .flat_map(|(hostname, host)| {
            let events = host.refused_events.iter().map(move |letter| {
                format!(
                    "{hostname}: {} {} of {} was answered {} {}",
                    letter.kind, letter.seq, letter.rollout_id, letter.status, letter.code
                )
            });
            let dispatches = host.refused_dispatches.iter().map(move |refusal| {
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
    fn long_lists_are_truncated() {
        let faults = (0..8).map(|n| n.to_string()).collect();
        let text = Check::new("x", faults).fault.unwrap();
        assert_eq!(text, "0; 1; 2; 3; 4; and 3 more");
        assert_eq!(Check::new("x", Vec::new()).fault, None);
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
        let crossed = ["AdvanceWave", "plan", "invariant"].map(str::to_owned);
        assert!(is_expected(&crossed.into()));
    }
}
