//! Passes trims, checkpoints and refusals to the invariants.

use nixfleet_bus::LogUsage;
use nixfleet_proto::OutputFrame;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;

use super::InvariantMonitor;
use crate::addressing::Incarnation;
use crate::simulated_servers::LogId;
use crate::simulated_servers::object_store::ObjectStore;

impl InvariantMonitor {
    /// A frame was stored; it may announce a checkpoint.
    pub(super) fn announced(
        &mut self,
        at: (Partition, u64),
        frame: &OutputFrame,
        objects: &ObjectStore,
    ) {
        self.counts.checkpoints += u64::from(frame.checkpoints.is_some());
        let found = self.retention.output(at, frame, (objects, &self.reference));
        self.record("retention", found);
    }

    /// A log was trimmed: this is the first message it holds.
    pub fn trimmed(&mut self, log: LogId, first_kept: u64) {
        self.counts.trims += 1;
        let found = self.retention.trimmed(log, first_kept);
        self.record("retention", found);
    }

    /// Objects of a partition were deleted by a service.
    pub fn deleted(&mut self, partition: Partition, objects: &ObjectStore) {
        let found = self.retention.holds(partition, objects);
        self.record("retention", found);
    }

    /// The object of a checkpoint was lost or changed by a fault.
    pub fn checkpoint_lost(&mut self, hash: &str) {
        self.retention.lost(hash);
    }

    /// True when no fault touched the object of a checkpoint.
    pub fn is_intact(&self, hash: &str) -> bool {
        self.retention.is_intact(hash)
    }

    /// A log is archived up to a sequence.
    pub fn archived(&mut self, log: LogId, seq: u64) {
        self.retention.archived(log, seq);
    }

    /// The rows of a checkpoint were written.
    pub fn restored(
        &mut self,
        partition: Partition,
        cursors: (Option<&Cursor>, &Cursor),
        snapshot: impl Fn() -> PartitionSnapshot,
    ) {
        self.counts.restored += 1;
        self.committed(partition, cursors, &snapshot);
        self.compare_rows(partition, snapshot());
    }

    /// A full log refused a message.
    pub fn refused(&mut self, process: Incarnation, log: LogId) {
        self.counts.refused += 1;
        if let LogId::Output(partition) = log {
            self.progress.refused(process, partition);
        }
    }

    /// A frame with outcomes was appended.
    pub fn appended(&mut self, process: Incarnation, partition: Partition) {
        self.progress.appended(process, partition);
    }

    /// An ownership ended, because of a failed append or for another reason.
    pub fn ownership_ended(
        &mut self,
        process: Incarnation,
        partition: Partition,
        append_failed: bool,
    ) {
        self.progress.ended(process, partition, append_failed);
    }

    /// An owner reports that it is ready.
    pub fn reported_ready(
        &mut self,
        process: Incarnation,
        partition: Partition,
        output: &LogUsage,
    ) {
        let found = self.progress.reported_ready((process, partition), output);
        self.record("progress", found);
    }
}
