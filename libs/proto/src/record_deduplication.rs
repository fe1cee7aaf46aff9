//! Deduplication of host records in a frame: only the last outcome that changed a host has its record.
//! A host that drains its event queue changes many times in one frame.
//!
//! Source: docs/adr/0011-a-frame-holds-each-record-once.md.

use std::collections::HashMap;
use std::sync::Arc;

use crate::host::HostRecord;
use crate::id::{Hostname, RolloutId};
use crate::outcome::Outcome;

/// Index of the last outcome of a frame with the record of a host, by host.
pub type LastRecords<'a> = HashMap<(&'a RolloutId, &'a Hostname), usize>;

/// The index of the last outcome with a record, for each host.
pub fn last_records(outcomes: &[Outcome]) -> LastRecords<'_> {
    let records = outcomes.iter().enumerate().flat_map(|(index, outcome)| {
        let records = outcome.decision.host_records().iter();
        records.map(move |record| (record.key(), index))
    });
    records.collect()
}

/// Removes every host record that a later outcome repeats; true when there was any. Readers that fold a
/// log again apply it before they compare outcomes with frames.
pub fn drop_repeated_records(outcomes: &mut [Outcome]) -> bool {
    let last = last_records(outcomes);
    let indexed = outcomes.iter().enumerate();
    let reduced = indexed.filter_map(|(index, outcome)| {
        let records = outcome.decision.host_records();
        let is_last = |record: &&Arc<HostRecord>| last.get(&record.key()) == Some(&index);
        let has_repeated = !records.iter().all(|record| is_last(&record));
        has_repeated.then(|| (index, records.iter().filter(is_last).cloned().collect()))
    });
    let reduced: Vec<_> = reduced.collect();
    let any = !reduced.is_empty();
    for (index, records) in reduced {
        outcomes[index].decision.replace_host_records(records);
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::NewHost;
    use crate::outcome::{Accepted, Decision};
    use crate::{Minutes, Timestamp};

    fn refused() -> Outcome {
        let text = r#"{"position":{"seq":1,"index":0},"at":"2026-01-01T00:00:00Z",
            "subject":{"entry":"HostEvent"},"rejected":{"reason":"stale","message":"again"}}"#;
        serde_json::from_str(text).unwrap()
    }

    /// An outcome that changed these hosts, which are known by rollout and name.
    fn changed(event_seq: u64, hosts: &[(&str, &str)]) -> Outcome {
        let record = |(rollout, host): &(&str, &str)| {
            let mut record = HostRecord::pending(NewHost {
                rollout_id: rollout.parse().unwrap(),
                hostname: host.parse().unwrap(),
                channel: "s".into(),
                target_closure: "c".into(),
                soak_minutes: Minutes::ZERO,
                dispatched_at: Timestamp::UNIX_EPOCH,
            });
            record.last_event_seq = event_seq;
            Arc::new(record)
        };
        let accepted = Accepted {
            hosts: hosts.iter().map(record).collect(),
            ..Accepted::default()
        };
        Outcome {
            decision: Decision::Accepted(Box::new(accepted)),
            ..refused()
        }
    }

    /// Hosts that outcomes have records of.
    fn hosts_with_records(outcomes: &[Outcome]) -> Vec<Vec<&str>> {
        let records = outcomes.iter().map(|outcome| {
            let records = outcome.decision.host_records().iter();
            records.map(|record| record.hostname.as_str()).collect()
        });
        records.collect()
    }

    #[test]
    fn the_last_outcome_that_changed_a_host_has_its_record() {
        let complete = [
            changed(1, &[("s@1", "a"), ("s@1", "b")]),
            changed(2, &[("s@2", "a")]),
            refused(),
            changed(4, &[("s@1", "a")]),
        ];
        let mut outcomes = complete.clone();
        assert!(drop_repeated_records(&mut outcomes));
        assert_eq!(
            hosts_with_records(&outcomes),
            [vec!["b"], vec!["a"], vec![], vec!["a"]]
        );
        assert_eq!(outcomes[3], complete[3]);
        assert!(!drop_repeated_records(&mut outcomes));
    }
}
