//! What a process says of announcements that it does not take over: once each.

use super::ManifestStore;
use crate::dead_letter::UndecodableMessage;

impl ManifestStore {
    /// Stores an announcement that cannot be read as a dead letter, and counts it; once in a process. A dead
    /// letter that cannot be stored holds nobody up.
    pub async fn store_as_dead_letter(&self, service: &'static str, letter: UndecodableMessage) {
        let (seq, faults) = (letter.seq, self.bus.announcement_faults());
        if !faults.is_new(seq, &letter.reason) {
            return;
        }
        metrics::counter!("nixfleet_manifest_refusals_total", "fault" => "unreadable").increment(1);
        if let Err(error) = self.bus.store_dead_letter(service, letter).await {
            faults.forget(seq);
            tracing::warn!(seq, %error, "an announcement that cannot be read is no dead letter");
        }
    }

    /// Counts that an announced release is refused, and logs it once in a process, and again for another reason.
    pub fn report_refusal(&self, seq: u64, faults: &[&'static str], reason: &str) {
        for fault in faults {
            metrics::counter!("nixfleet_manifest_refusals_total", "fault" => *fault).increment(1);
        }
        if self.bus.announcement_faults().is_new(seq, reason) {
            tracing::warn!(
                seq,
                ?faults,
                reason,
                "an announced release is refused and passed over; if nobody announced an earlier one again, publish \
                 the newest release again: docs/operations/announcements.md"
            );
        }
    }
}
