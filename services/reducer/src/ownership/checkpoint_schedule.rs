//! When the state of a partition is written as a checkpoint, and the checkpoints announced before.
//!
//! A takeover without rows reads the newest checkpoint and the log behind it, and logs are trimmed
//! behind the checkpoint before. Checkpoints therefore follow the growth of the logs: reading a log
//! that grew less than the size of the state costs less than writing the state.

use nixfleet_core::partition::FrozenState;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{CheckpointRef, Checkpoints, Timestamp};

/// Distances between the two newest checkpoints from which a third is written at once: the log is
/// kept behind the older one, and while agents are refused it may not grow any more.
const KEPT_DISTANCES: u64 = 3;

/// Limits of the log growth between two checkpoints, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// Minimum, for a small state.
    pub min_log_bytes: u64,
    /// Maximum, for a large state: a log must hold two of these distances.
    pub max_log_bytes: u64,
}

/// Bytes in the two logs of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogBytes {
    /// Bytes in the input log.
    pub input: u64,
    /// Bytes in the output log.
    pub output: u64,
}

impl LogBytes {
    fn larger(self) -> u64 {
        self.input.max(self.output)
    }
}

/// Creation times of the two streams of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCreationTimes {
    /// The input stream.
    pub input: Timestamp,
    /// The output stream.
    pub output: Timestamp,
}

/// A frozen state and its cursor, to be written as a checkpoint.
#[derive(Debug, Clone)]
pub struct CheckpointState {
    state: FrozenState,
    cursor: Cursor,
    /// Creation time of the output stream.
    pub output_created: Timestamp,
}

impl CheckpointState {
    pub(crate) fn new(state: FrozenState, cursor: Cursor, output_created: Timestamp) -> Self {
        Self {
            state,
            cursor,
            output_created,
        }
    }

    /// Hash of the state. Walks the whole state.
    pub fn hash(&self) -> String {
        self.state.hash()
    }

    /// All rows of the state.
    pub fn rows(&self) -> PartitionSnapshot {
        self.state.rows(self.cursor.clone())
    }
}

/// Schedule of the checkpoints of one partition.
#[derive(Debug)]
pub(crate) struct CheckpointSchedule {
    limits: CheckpointLimits,
    /// Upper bound of the log growth since the newest checkpoint.
    grown: LogBytes,
    /// `grown` at the time when the state that is being written was frozen.
    grown_at_freeze: Option<LogBytes>,
    /// Upper bound of the log growth between the two newest checkpoints.
    between: LogBytes,
    /// True while the object store lacks a checkpoint that the log needs.
    is_missing: bool,
    known: Checkpoints,
    announced_at: Option<u64>,
}

impl CheckpointSchedule {
    /// Creates the schedule after a takeover. `held` is the size of the logs, as the part behind
    /// the newest checkpoint is unknown.
    pub(crate) fn new(
        limits: CheckpointLimits,
        (known, announced_at): (Checkpoints, Option<u64>),
        held: LogBytes,
    ) -> Self {
        Self {
            limits,
            grown: held,
            grown_at_freeze: None,
            between: LogBytes::default(),
            is_missing: false,
            known,
            announced_at,
        }
    }

    pub(crate) fn known(&self) -> &Checkpoints {
        &self.known
    }

    pub(crate) fn announced_at(&self) -> Option<u64> {
        self.announced_at
    }

    pub(crate) fn grow(&mut self, by: LogBytes) {
        self.grown.input += by.input;
        self.grown.output += by.output;
    }

    /// True when a log has grown enough or a checkpoint is missing, and none is being written.
    pub(crate) fn is_due(&self) -> bool {
        let CheckpointLimits {
            min_log_bytes,
            max_log_bytes,
        } = self.limits;
        let state_bytes = self.known.last.as_ref().map_or(0, |last| last.bytes);
        let distance = state_bytes.max(min_log_bytes).min(max_log_bytes);
        let has_grown = self.grown.larger() >= distance;
        let keeps_much = self.between.larger() >= distance.saturating_mul(KEPT_DISTANCES);
        self.grown_at_freeze.is_none() && (has_grown || keeps_much || self.is_missing)
    }

    /// Records that the object store lacks a checkpoint that the log needs.
    pub(crate) fn set_missing(&mut self) {
        self.is_missing = true;
    }

    pub(crate) fn begin(&mut self) {
        self.grown_at_freeze = Some(self.grown);
    }

    /// Records a failed write: a checkpoint is due again.
    pub(crate) fn failed(&mut self) {
        self.grown_at_freeze = None;
    }

    /// Records a stored checkpoint, which the frame at this output sequence announces.
    pub(crate) fn announced(&mut self, stored: CheckpointRef, out_seq: u64) -> &Checkpoints {
        let before = self.grown_at_freeze.take().unwrap_or_default();
        self.grown.input -= before.input.min(self.grown.input);
        self.grown.output -= before.output.min(self.grown.output);
        self.between = before;
        self.is_missing = false;
        self.known = self.known.with(stored);
        self.announced_at = Some(out_seq);
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint_schedule(held: LogBytes) -> CheckpointSchedule {
        let limits = CheckpointLimits {
            min_log_bytes: 100,
            max_log_bytes: 1_000,
        };
        CheckpointSchedule::new(limits, (Checkpoints::default(), None), held)
    }

    fn output(bytes: u64) -> LogBytes {
        LogBytes {
            input: 0,
            output: bytes,
        }
    }

    fn stored(bytes: u64) -> CheckpointRef {
        CheckpointRef {
            hash: format!("{bytes}"),
            bytes,
            out_seq: 7,
            input: None,
        }
    }

    #[test]
    fn growth_of_either_log_makes_one_checkpoint_due() {
        let mut checkpoint_schedule = checkpoint_schedule(LogBytes::default());
        assert!(!checkpoint_schedule.is_due());
        checkpoint_schedule.grow(output(99));
        assert!(!checkpoint_schedule.is_due());
        checkpoint_schedule.grow(LogBytes {
            input: 100,
            output: 0,
        });
        assert!(checkpoint_schedule.is_due());
        checkpoint_schedule.begin();
        assert!(!checkpoint_schedule.is_due());
        checkpoint_schedule.failed();
        assert!(checkpoint_schedule.is_due());
    }

    #[test]
    fn growth_while_a_checkpoint_is_written_counts_for_the_next() {
        let mut checkpoint_schedule = checkpoint_schedule(output(150));
        assert!(checkpoint_schedule.is_due());
        checkpoint_schedule.begin();
        checkpoint_schedule.grow(output(120));
        let known = checkpoint_schedule.announced(stored(10), 9).clone();
        assert_eq!((known.last, known.previous), (Some(stored(10)), None));
        assert_eq!(checkpoint_schedule.announced_at(), Some(9));
        assert!(checkpoint_schedule.is_due());
        checkpoint_schedule.begin();
        checkpoint_schedule.announced(stored(11), 12);
        assert_eq!(checkpoint_schedule.known().previous, Some(stored(10)));
        assert!(!checkpoint_schedule.is_due());
    }

    #[test]
    fn two_checkpoints_follow_when_the_previous_one_is_old() {
        for (held, again) in [(299, false), (300, true)] {
            let mut checkpoint_schedule = checkpoint_schedule(output(held));
            assert!(checkpoint_schedule.is_due());
            checkpoint_schedule.begin();
            checkpoint_schedule.announced(stored(10), 9);
            assert_eq!(checkpoint_schedule.is_due(), again, "{held}");
            checkpoint_schedule.begin();
            checkpoint_schedule.announced(stored(11), 10);
            assert!(!checkpoint_schedule.is_due(), "{held}");
        }
    }

    #[test]
    fn a_missing_checkpoint_makes_one_due_until_one_is_announced() {
        let mut checkpoint_schedule = checkpoint_schedule(LogBytes::default());
        checkpoint_schedule.set_missing();
        assert!(checkpoint_schedule.is_due());
        checkpoint_schedule.begin();
        assert!(!checkpoint_schedule.is_due());
        checkpoint_schedule.failed();
        assert!(checkpoint_schedule.is_due());
        checkpoint_schedule.begin();
        checkpoint_schedule.announced(stored(10), 9);
        assert!(!checkpoint_schedule.is_due());
    }

    #[test]
    fn the_distance_follows_the_size_of_the_state_within_limits() {
        for (state, grown, due) in [
            (500, 499, false),
            (500, 500, true),
            (5_000, 999, false),
            (5_000, 1_000, true),
        ] {
            let mut checkpoint_schedule = checkpoint_schedule(LogBytes::default());
            checkpoint_schedule.begin();
            checkpoint_schedule.announced(stored(state), 1);
            checkpoint_schedule.grow(output(grown));
            assert_eq!(checkpoint_schedule.is_due(), due, "{state} {grown}");
        }
    }
}
