//! Looking ahead: the processor waits for the memory of many hosts at once.
//!
//! A fleet is larger than every cache, and an entry by itself waits for one thing after the other: the
//! table that knows where its host is, the host, its record, the texts that the record names.

use std::hint::black_box;

use nixfleet_proto::{Entry, HostRecord};

use super::{HostEntry, PartitionState, Rollout};

impl PartitionState {
    /// Brings what these entries are about into the cache: some tens of entries that are folded next. The
    /// state is only read, and whoever does not call it gets the same outcomes.
    pub fn prefetch<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) {
        let mut last: Option<&Rollout> = None;
        let hosts: Vec<&HostEntry> = entries
            .into_iter()
            .filter_map(|entry| {
                let rollout_id = entry.body.rollout_id()?;
                let known = last.filter(|rollout| rollout.record.rollout_id == *rollout_id);
                let rollout = known.or_else(|| self.rollouts.get(rollout_id))?;
                last = Some(rollout);
                rollout.hosts.find_by_hash(entry.body.hostname()?)
            })
            .collect();
        // One thing of all of them before the next thing of any: none of these reads waits for another.
        let records = hosts.iter().map(|host| read_record(&host.record));
        let records: usize = records.sum();
        let texts = hosts.iter().map(|host| read_texts(&host.record));
        black_box((records, texts.sum::<usize>()));
    }
}

/// Fields from all over a record, which takes several lines of a cache.
fn read_record(record: &HostRecord) -> usize {
    let stamps = [
        record.dispatch_acked_at,
        record.activation_failed_at,
        record.soak_due_at,
        record.reverted_at,
    ];
    stamps.iter().flatten().count()
        + record.state as usize
        + record.hostname.as_str().len()
        + usize::from(record.current_closure.is_some())
        + usize::from(record.convergence_claim.is_some())
        + usize::from(record.last_event_seq == record.recovery_seq)
}

/// The beginnings of texts that no other host shares.
fn read_texts(record: &HostRecord) -> usize {
    let current = record.current_closure.as_ref();
    let texts = [
        Some(record.hostname.as_str()),
        Some(record.target_closure.as_str()),
        current.map(|closure| closure.as_str()),
    ];
    let first = |text: &str| text.bytes().next().map_or(0, usize::from);
    texts.into_iter().flatten().map(first).sum()
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{EntryBody, PlanAction, Timestamp};

    use super::*;

    #[test]
    fn entries_about_nobody_or_strangers_are_passed_over() {
        let state = PartitionState::new();
        let stranger = EntryBody::RecoveryCandidate {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: "h".into(),
            current_closure: "c".into(),
        };
        let nobody = EntryBody::Plan {
            epoch: 1,
            action: PlanAction::Barrier {},
        };
        let entry = |body| Entry::new(Timestamp::UNIX_EPOCH, body);
        state.prefetch(&[stranger, nobody].map(entry));
        state.prefetch(&[]);
    }
}
