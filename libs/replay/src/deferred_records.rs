//! Host records that a frame defers: only the last outcome that changed a host has its record, and earlier
//! outcomes omit theirs.

use std::sync::Arc;

use nixfleet_proto::record_deduplication::{LastRecords, last_records};
use nixfleet_proto::{Decision, HostRecord, Hostname, Outcome, RolloutId};

/// Index of the last outcome with a record, for each host of a frame.
pub(crate) struct DeferredRecords<'a> {
    outcomes: &'a [Outcome],
    last: LastRecords<'a>,
}

impl<'a> DeferredRecords<'a> {
    pub(crate) fn of(outcomes: &'a [Outcome]) -> Self {
        Self {
            outcomes,
            last: last_records(outcomes),
        }
    }

    /// Removes from a computed outcome the records that the published outcome omits, and returns them.
    pub(crate) fn take_deferred(
        &self,
        index: usize,
        decided: &mut Outcome,
    ) -> Vec<Arc<HostRecord>> {
        let published = &self.outcomes[index].decision;
        if matches!(published, Decision::Rejected(_)) {
            return Vec::new();
        }
        let present = published.host_records();
        let is_present =
            |record: &HostRecord| present.iter().any(|other| other.key() == record.key());
        let records = decided.decision.replace_host_records(Vec::new());
        let (deferred, here) = records
            .into_iter()
            .partition(|record| self.is_later(index, record.key()) && !is_present(record));
        decided.decision.replace_host_records(here);
        deferred
    }

    /// True when the outcome may omit records that the replay did not compute: the state lacks them until
    /// the end of the frame.
    pub(crate) fn may_omit(&self, index: usize) -> bool {
        let outcome = &self.outcomes[index];
        let subject = &outcome.subject;
        match (&outcome.decision, &subject.rollout_id, &subject.hostname) {
            (Decision::Rejected(_), ..) => false,
            (Decision::Accepted(_), Some(rollout_id), Some(hostname)) => {
                self.is_later(index, (rollout_id, hostname))
                    && outcome.decision.host_records().is_empty()
            }
            (Decision::Accepted(_), ..) => self.outcomes[index + 1..]
                .iter()
                .any(|later| !later.decision.host_records().is_empty()),
        }
    }

    fn is_later(&self, index: usize, key: (&RolloutId, &Hostname)) -> bool {
        self.last.get(&key).is_some_and(|last| *last > index)
    }
}
