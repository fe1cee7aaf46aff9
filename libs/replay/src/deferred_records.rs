//! Records that a frame says later: it has the record of a host once, in the last outcome that changed
//! it. Those before are decided on what the entries between them made of it.

use std::sync::Arc;

use nixfleet_proto::record_deduplication::{LastRecords, last_records};
use nixfleet_proto::{Decision, HostRecord, Hostname, Outcome, RolloutId};

/// Where each record of a frame is.
pub(crate) struct DeferredRecords<'a> {
    outcomes: &'a [Outcome],
    last: LastRecords<'a>,
}

impl<'a> DeferredRecords<'a> {
    /// Those of a frame.
    pub(crate) fn of(outcomes: &'a [Outcome]) -> Self {
        Self {
            outcomes,
            last: last_records(outcomes),
        }
    }

    /// Takes the records out of a decision that the outcome published for it left to later ones.
    pub(crate) fn take_left(&self, place: usize, decided: &mut Outcome) -> Vec<Arc<HostRecord>> {
        let published = &self.outcomes[place].decision;
        if matches!(published, Decision::Rejected(_)) {
            return Vec::new();
        }
        let said = published.host_records();
        let is_said = |record: &HostRecord| said.iter().any(|said| said.key() == record.key());
        let records = decided.decision.replace_host_records(Vec::new());
        let (left, here) = records
            .into_iter()
            .partition(|record| self.is_later(place, record.key()) && !is_said(record));
        decided.decision.replace_host_records(here);
        left
    }

    /// True when the outcome may have left records to later ones, and nobody decided what they were:
    /// until the end of the frame the state lacks them.
    pub(crate) fn may_lack(&self, place: usize) -> bool {
        let outcome = &self.outcomes[place];
        let subject = &outcome.subject;
        match (&outcome.decision, &subject.rollout_id, &subject.hostname) {
            (Decision::Rejected(_), ..) => false,
            (Decision::Accepted(_), Some(rollout_id), Some(hostname)) => {
                self.is_later(place, (rollout_id, hostname))
                    && outcome.decision.host_records().is_empty()
            }
            (Decision::Accepted(_), ..) => self.outcomes[place + 1..]
                .iter()
                .any(|later| !later.decision.host_records().is_empty()),
        }
    }

    fn is_later(&self, place: usize, key: (&RolloutId, &Hostname)) -> bool {
        self.last.get(&key).is_some_and(|last| *last > place)
    }
}
