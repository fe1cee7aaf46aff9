//! When the state of a partition is written as a checkpoint, and what is known of those before.
//!
//! A takeover without rows reads the newest checkpoint and the log behind it, and logs are trimmed behind
//! the one before it. So checkpoints follow the growth of the logs: as long as a log grows less than the
//! state takes, reading the log costs less than writing the state.

use nixfleet_core::partition::FrozenState;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{CheckpointRef, Checkpoints, Timestamp};

/// Distances that may lie between the two newest checkpoints before a third is written at once: the log is
/// kept behind the older one, and with agents refused it may not grow any more.
const KEPT_DISTANCES: u64 = 3;

/// Bounds of the distance between two checkpoints, in bytes that a log grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// At least so much, however small the state is.
    pub min_log_bytes: u64,
    /// At most so much, however large the state is: logs must hold two of these distances.
    pub max_log_bytes: u64,
}

/// Bytes of the two logs of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogBytes {
    /// The input log.
    pub input: u64,
    /// The output log.
    pub output: u64,
}

impl LogBytes {
    fn larger(self) -> u64 {
        self.input.max(self.output)
    }
}

/// When the two streams of a partition were created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogsCreated {
    /// The input stream.
    pub input: Timestamp,
    /// The output stream.
    pub output: Timestamp,
}

/// A state that is to become a checkpoint.
#[derive(Debug, Clone)]
pub struct Unwritten {
    state: FrozenState,
    cursor: Cursor,
    /// When the output stream was created.
    pub output_created: Timestamp,
}

impl Unwritten {
    pub(crate) fn new(state: FrozenState, cursor: Cursor, output_created: Timestamp) -> Self {
        Self {
            state,
            cursor,
            output_created,
        }
    }

    /// Hash of the state. Walks all of it.
    pub fn hash(&self) -> String {
        self.state.hash()
    }

    /// All rows of the state.
    pub fn rows(&self) -> PartitionSnapshot {
        self.state.rows(self.cursor.clone())
    }
}

/// The checkpoints of one partition.
#[derive(Debug)]
pub(crate) struct Checkpointing {
    limits: CheckpointLimits,
    /// Growth of the logs behind the state of the newest checkpoint, at most.
    grown: LogBytes,
    /// The same when the state that is being written was frozen.
    grown_before: Option<LogBytes>,
    /// Growth between the two newest checkpoints, at most.
    between: LogBytes,
    /// The object store lacks one that the log needs.
    is_missing: bool,
    known: Checkpoints,
    announced_at: Option<u64>,
}

impl Checkpointing {
    /// Goes on behind a takeover. `held` is what the logs hold: how much of it lies behind the newest
    /// checkpoint is not known.
    pub(crate) fn new(
        limits: CheckpointLimits,
        (known, announced_at): (Checkpoints, Option<u64>),
        held: LogBytes,
    ) -> Self {
        Self {
            limits,
            grown: held,
            grown_before: None,
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

    /// True when a log has grown enough, or a checkpoint is missing, and none is being written.
    pub(crate) fn is_due(&self) -> bool {
        let CheckpointLimits {
            min_log_bytes,
            max_log_bytes,
        } = self.limits;
        let state_bytes = self.known.last.as_ref().map_or(0, |last| last.bytes);
        let distance = state_bytes.max(min_log_bytes).min(max_log_bytes);
        let has_grown = self.grown.larger() >= distance;
        let keeps_much = self.between.larger() >= distance.saturating_mul(KEPT_DISTANCES);
        self.grown_before.is_none() && (has_grown || keeps_much || self.is_missing)
    }

    /// The object store lacks one that the log needs.
    pub(crate) fn missing(&mut self) {
        self.is_missing = true;
    }

    pub(crate) fn begin(&mut self) {
        self.grown_before = Some(self.grown);
    }

    /// Nothing was stored: it is due again.
    pub(crate) fn failed(&mut self) {
        self.grown_before = None;
    }

    /// It is stored, and announced by the frame at this output sequence.
    pub(crate) fn announced(&mut self, stored: CheckpointRef, out_seq: u64) -> &Checkpoints {
        let before = self.grown_before.take().unwrap_or_default();
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

    fn checkpointing(held: LogBytes) -> Checkpointing {
        let limits = CheckpointLimits {
            min_log_bytes: 100,
            max_log_bytes: 1_000,
        };
        Checkpointing::new(limits, (Checkpoints::default(), None), held)
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
    fn either_log_makes_a_checkpoint_due_and_one_is_written_at_a_time() {
        let mut checkpointing = checkpointing(LogBytes::default());
        assert!(!checkpointing.is_due());
        checkpointing.grow(output(99));
        assert!(!checkpointing.is_due());
        checkpointing.grow(LogBytes {
            input: 100,
            output: 0,
        });
        assert!(checkpointing.is_due());
        checkpointing.begin();
        assert!(!checkpointing.is_due());
        checkpointing.failed();
        assert!(checkpointing.is_due());
    }

    #[test]
    fn growth_while_a_checkpoint_is_written_counts_for_the_next() {
        let mut checkpointing = checkpointing(output(150));
        assert!(checkpointing.is_due());
        checkpointing.begin();
        checkpointing.grow(output(120));
        let known = checkpointing.announced(stored(10), 9).clone();
        assert_eq!((known.last, known.previous), (Some(stored(10)), None));
        assert_eq!(checkpointing.announced_at(), Some(9));
        assert!(checkpointing.is_due());
        checkpointing.begin();
        checkpointing.announced(stored(11), 12);
        assert_eq!(checkpointing.known().previous, Some(stored(10)));
        assert!(!checkpointing.is_due());
    }

    #[test]
    fn a_log_that_is_kept_behind_an_old_checkpoint_gets_two_in_a_row() {
        for (held, again) in [(299, false), (300, true)] {
            let mut checkpointing = checkpointing(output(held));
            assert!(checkpointing.is_due());
            checkpointing.begin();
            checkpointing.announced(stored(10), 9);
            assert_eq!(checkpointing.is_due(), again, "{held}");
            checkpointing.begin();
            checkpointing.announced(stored(11), 10);
            assert!(!checkpointing.is_due(), "{held}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_missing_makes_one_due_until_one_is_announced() {
        let mut checkpointing = checkpointing(LogBytes::default());
        checkpointing.missing();
        assert!(checkpointing.is_due());
        checkpointing.begin();
        assert!(!checkpointing.is_due());
        checkpointing.failed();
        assert!(checkpointing.is_due());
        checkpointing.begin();
        checkpointing.announced(stored(10), 9);
        assert!(!checkpointing.is_due());
    }

    #[test]
    fn a_larger_state_is_written_more_rarely_within_bounds() {
        for (state, grown, due) in [
            (500, 499, false),
            (500, 500, true),
            (5_000, 999, false),
            (5_000, 1_000, true),
        ] {
            let mut checkpointing = checkpointing(LogBytes::default());
            checkpointing.begin();
            checkpointing.announced(stored(state), 1);
            checkpointing.grow(output(grown));
            assert_eq!(checkpointing.is_due(), due, "{state} {grown}");
        }
    }
}
