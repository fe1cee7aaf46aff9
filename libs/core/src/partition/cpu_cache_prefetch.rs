//! Cache prefetching for entries that are folded next.
//!
//! A large fleet exceeds every CPU cache, and a single entry waits for several dependent loads: the index
//! of hosts, the host, its record, the texts of the record. Loading those of many entries together lets
//! the CPU overlap the cache misses.

use std::hint::black_box;

use nixfleet_proto::{Entry, HostRecord};

use super::{PartitionState, Rollout, RolloutHost};

impl PartitionState {
    /// Loads the hosts of the next entries into the cache; useful for some tens of entries. Only reads the
    /// state, so that outcomes are the same without it.
    pub fn prefetch<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) {
        let mut last: Option<&Rollout> = None;
        let hosts: Vec<&RolloutHost> = entries
            .into_iter()
            .filter_map(|entry| {
                let rollout_id = entry.body.rollout_id()?;
                let known = last.filter(|rollout| rollout.record.rollout_id == *rollout_id);
                let rollout = known.or_else(|| self.rollouts.get(rollout_id))?;
                last = Some(rollout);
                rollout.hosts.find_by_hash(entry.body.hostname()?)
            })
            .collect();
        // One load of every host before the next load of any: these loads are independent.
        let records = hosts.iter().map(|host| read_record(&host.record));
        let records: usize = records.sum();
        let texts = hosts.iter().map(|host| read_texts(&host.record));
        black_box((records, texts.sum::<usize>()));
    }
}

/// Reads fields across a record, which spans several cache lines.
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

/// Reads the first bytes of texts that hosts do not share.
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
    fn entries_without_a_known_host_are_skipped() {
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
