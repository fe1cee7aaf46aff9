//! What the logs keep and what is stored beside them.

use nixfleet_bus::LogUsage;
use nixfleet_proto::OutputFrame;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;

use super::Checks;
use crate::model::Log;
use crate::model::objects::Objects;
use crate::world::event::Alive;

/// How often the limits of the logs mattered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Checkpoints that were announced.
    pub checkpoints: u64,
    /// Times a log was trimmed.
    pub trims: u64,
    /// Messages that a full log refused.
    pub refused: u64,
    /// Requests of agents that were refused because a log was nearly full.
    pub held_back: u64,
    /// Times rows were written from a checkpoint.
    pub restored: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            checkpoints: self.checkpoints + other.checkpoints,
            trims: self.trims + other.trims,
            refused: self.refused + other.refused,
            held_back: self.held_back + other.held_back,
            restored: self.restored + other.restored,
        }
    }
}

impl Checks {
    /// A frame is in the log; it may announce a checkpoint.
    pub(super) fn announced(
        &mut self,
        at: (Partition, u64),
        frame: &OutputFrame,
        objects: &Objects,
    ) {
        self.counts.checkpoints += u64::from(frame.checkpoints.is_some());
        let found = self.retention.output(at, frame, (objects, &self.reference));
        self.hold("retention", found);
    }

    /// A log was trimmed: this is the first message it holds.
    pub fn trimmed(&mut self, log: Log, first_kept: u64) {
        self.counts.trims += 1;
        let found = self.retention.trimmed(log, first_kept);
        self.hold("retention", found);
    }

    /// Objects of a partition were deleted by a service.
    pub fn deleted(&mut self, partition: Partition, objects: &Objects) {
        let found = self.retention.holds(partition, objects);
        self.hold("retention", found);
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
    pub fn archived(&mut self, log: Log, seq: u64) {
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
    pub fn refused(&mut self, process: Alive, log: Log) {
        self.counts.refused += 1;
        if let Log::Output(partition) = log {
            self.progress.refused(process, partition);
        }
    }

    /// A frame with outcomes was appended.
    pub fn appended(&mut self, process: Alive, partition: Partition) {
        self.progress.appended(process, partition);
    }

    /// An owner gave up, because of a frame that it could not append or for another reason.
    pub fn ownership_ended(&mut self, process: Alive, partition: Partition, for_want: bool) {
        self.progress.ended(process, partition, for_want);
    }

    /// An owner says that it is ready.
    pub fn says_ready(&mut self, process: Alive, partition: Partition, output: &LogUsage) {
        let found = self.progress.says_ready((process, partition), output);
        self.hold("progress", found);
    }
}
