//! Builds the turns of a partition: rows and cursor from consecutive output frames.

use std::collections::VecDeque;

use nixfleet_proto::snapshot::{Cursor, Origin, OriginConflict};
use nixfleet_proto::{Outcome, OutputFrame, PinnedSet, Timestamp, mutation_testing};

use crate::cursor::advance;
use crate::log_check::{LogMismatch, PartitionLogs, StartPosition, start};
use crate::row_builder::{RowError, build_rows};
use nixfleet_proto::turn_rows::TurnRows;

/// An output frame and its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencedFrame {
    /// Sequence in the output log.
    pub seq: u64,
    /// Trace context of the reducer turn that wrote the frame.
    pub traceparent: Option<String>,
    /// Content of the frame.
    pub frame: OutputFrame,
}

/// Consecutive frames for one transaction; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBatch {
    frames: Vec<SequencedFrame>,
}

impl FrameBatch {
    /// Takes the first frames with at most `outcomes_max` outcomes in total, but at least one
    /// frame; `None` when there are none.
    pub fn first_of(frames: &mut VecDeque<SequencedFrame>, outcomes_max: usize) -> Option<Self> {
        let first = frames.pop_front()?;
        let mut room = outcomes_max.saturating_sub(first.frame.outcomes.len());
        let mut taken = vec![first];
        while let Some(next) = frames.front()
            && next.frame.outcomes.len() <= room
        {
            room -= next.frame.outcomes.len();
            taken.extend(frames.pop_front());
        }
        Some(Self { frames: taken })
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Outcomes in order.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.frames.iter().flat_map(|frame| &frame.frame.outcomes)
    }

    /// Trace contexts of the frames.
    pub fn traceparents(&self) -> impl Iterator<Item = &str> {
        self.frames
            .iter()
            .filter_map(|frame| frame.traceparent.as_deref())
    }
}

/// Splits frames into batches of at most `outcomes_max` outcomes, but at least one frame.
pub fn split_batches(frames: Vec<SequencedFrame>, outcomes_max: usize) -> Vec<FrameBatch> {
    let mut frames = VecDeque::from(frames);
    std::iter::from_fn(|| FrameBatch::first_of(&mut frames, outcomes_max)).collect()
}

/// Content of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Output sequence that the stored cursor must have, 0 for no cursor. Another sequence means
    /// that another applier wrote: nothing is written, and the cursor is read again.
    pub expected: u64,
    /// Changed rows.
    pub rows: TurnRows,
    /// Cursor to store with the rows.
    pub cursor: Cursor,
}

/// Why a turn cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// A frame is missing or repeated.
    #[error("got output frame {found}, expected {wanted}")]
    OutOfOrder {
        /// Expected sequence.
        wanted: u64,
        /// Sequence of the frame.
        found: u64,
    },
    /// The frame does not continue these tables.
    #[error(transparent)]
    Origin(#[from] OriginConflict),
    /// An outcome gives no rows.
    #[error(transparent)]
    Rows(#[from] RowError),
}

/// Position of a partition's tables in their log. After a failure another builder starts at the
/// stored cursor, which is always correct: tables and cursor are written together.
#[derive(Debug, Clone)]
pub struct TurnBuilder {
    cursor: Option<Cursor>,
    /// Origin of tables without a cursor.
    origin: Origin,
    stream_created: Timestamp,
    next: u64,
}

impl TurnBuilder {
    /// Compares the stored cursor with the logs and starts behind it.
    ///
    /// # Errors
    /// [`LogMismatch`] when log and tables do not belong together; it names the remedy.
    pub fn start(
        cursor: Option<Cursor>,
        logs: &PartitionLogs,
    ) -> Result<(Self, StartPosition), LogMismatch> {
        let start = start(cursor.as_ref(), logs)?;
        let builder = Self {
            origin: match &cursor {
                Some(cursor) => cursor.origin,
                None => Origin::of_log(start.seq()),
            },
            cursor,
            stream_created: logs.input.created,
            next: start.seq(),
        };
        Ok((builder, start))
    }

    /// The last cursor that was read or written.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Next output sequence.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Builds the turn of these frames. The manifests of
    /// [`opened_manifests`](crate::opened_manifests) must be in `pinned`.
    ///
    /// # Errors
    /// [`TurnError`]; a retry does not help.
    pub fn turn(&self, batch: &FrameBatch, pinned: &PinnedSet) -> Result<Turn, TurnError> {
        let mut origin = self.origin;
        for (wanted, frame) in (self.next..).zip(&batch.frames) {
            let found = frame.seq;
            if found != wanted {
                return Err(TurnError::OutOfOrder { wanted, found });
            }
            origin.follow(&frame.frame)?;
        }
        let rows = if mutation_testing::is_active("applier-cursor-without-rows") {
            TurnRows::default()
        } else {
            build_rows(batch.outcomes(), pinned)?
        };
        let frames = batch.frames.iter().map(|frame| (frame.seq, &frame.frame));
        let mut cursor = advance(self.cursor.as_ref(), frames, self.stream_created);
        cursor.origin = origin;
        Ok(Turn {
            expected: self.cursor.as_ref().map_or(0, |cursor| cursor.out_seq),
            rows,
            cursor,
        })
    }

    /// Continues behind a turn that was written.
    pub fn written(&mut self, cursor: Cursor) {
        self.next = cursor.out_seq + 1;
        self.origin = cursor.origin;
        self.cursor = Some(cursor);
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_bus::StreamIdentity;

    use super::*;

    fn logs(first: u64) -> PartitionLogs {
        let identity = StreamIdentity {
            created: Timestamp::UNIX_EPOCH,
            first_seq: first,
            last_seq: 1_000,
        };
        PartitionLogs {
            input: identity,
            output: identity,
            msg_id: None,
        }
    }

    fn frame(seq: u64) -> SequencedFrame {
        SequencedFrame {
            seq,
            traceparent: None,
            frame: OutputFrame::new(1),
        }
    }

    fn turn(builder: &TurnBuilder, seqs: &[u64]) -> Result<Turn, TurnError> {
        let frames = seqs.iter().copied().map(frame).collect();
        builder.turn(&FrameBatch { frames }, &PinnedSet::new())
    }

    #[test]
    fn each_turn_expects_the_cursor_of_the_previous_one() {
        let (mut builder, _) = TurnBuilder::start(None, &logs(1)).unwrap();
        let first = turn(&builder, &[1, 2]).unwrap();
        assert_eq!((first.expected, first.cursor.out_seq), (0, 2));
        builder.written(first.cursor);
        let second = turn(&builder, &[3]).unwrap();
        assert_eq!((second.expected, second.cursor.out_seq), (2, 3));
    }

    #[test]
    fn missing_and_repeated_frames_are_refused() {
        let (builder, _) = TurnBuilder::start(None, &logs(1)).unwrap();
        let check = |seqs: &[u64], wanted, found| {
            let error = TurnError::OutOfOrder { wanted, found };
            assert_eq!(turn(&builder, seqs), Err(error));
        };
        check(&[2], 1, 2);
        check(&[1, 1], 2, 1);
        check(&[1, 3], 2, 3);
    }

    #[test]
    fn a_frame_of_an_owner_with_less_state_is_refused() {
        let (mut builder, _) = TurnBuilder::start(None, &logs(1)).unwrap();
        let first = turn(&builder, &[1]).unwrap();
        builder.written(first.cursor);
        let mut rebuilt = frame(2);
        rebuilt.frame.rebuilt_from = Some(2);
        rebuilt.frame.outcomes = vec![crate::cursor::tests::rejected(1)];
        let batch = FrameBatch {
            frames: vec![rebuilt],
        };
        let error = builder.turn(&batch, &PinnedSet::new()).unwrap_err();
        assert!(matches!(error, TurnError::Origin(_)), "{error}");
    }

    #[test]
    fn tables_begun_in_a_trimmed_log_store_their_origin() {
        let (builder, start) = TurnBuilder::start(None, &logs(40)).unwrap();
        assert_eq!(start, StartPosition::FromTrimmed(40));
        let turn = turn(&builder, &[40]).unwrap();
        assert_eq!(turn.cursor.origin, Origin::of_log(40));
    }

    #[test]
    fn batches_are_cut_between_frames() {
        let sized = |seq, outcomes| {
            let mut frame = frame(seq);
            frame.frame.outcomes = (0..outcomes).map(crate::cursor::tests::rejected).collect();
            frame
        };
        let frames = vec![
            sized(1, 3),
            sized(2, 2),
            sized(3, 9),
            sized(4, 0),
            sized(5, 1),
        ];
        let cut = split_batches(frames, 5);
        let seqs: Vec<Vec<u64>> = cut
            .iter()
            .map(|batch| batch.frames.iter().map(|frame| frame.seq).collect())
            .collect();
        assert_eq!(seqs, [vec![1, 2], vec![3, 4], vec![5]]);
    }
}
