//! Following an output log into tables, one turn after the other.

use std::collections::VecDeque;

use nixfleet_proto::snapshot::{Cursor, Origin, OriginConflict};
use nixfleet_proto::{Outcome, OutputFrame, PinnedSet, Timestamp, mutation_testing};

use crate::coalesce::{CoalesceError, coalesce};
use crate::cursor::advance;
use crate::position::{GuardError, Logs, Start, start};
use nixfleet_proto::turn_rows::TurnRows;

/// A frame of the output log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its sequence.
    pub seq: u64,
    /// Trace context of the turn that wrote it.
    pub traceparent: Option<String>,
    /// The frame.
    pub frame: OutputFrame,
}

/// Frames that are applied in one transaction; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    frames: Vec<Frame>,
}

impl Batch {
    /// Takes the first frames that have at most `outcomes_max` outcomes together, one in any case; `None` when
    /// there are none.
    pub fn first_of(frames: &mut VecDeque<Frame>, outcomes_max: usize) -> Option<Self> {
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

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The outcomes, in order.
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

/// Cuts frames into batches of at most `outcomes_max` outcomes; a frame that has more is a batch of
/// its own.
pub fn batches(frames: Vec<Frame>, outcomes_max: usize) -> Vec<Batch> {
    let mut frames = VecDeque::from(frames);
    std::iter::from_fn(|| Batch::first_of(&mut frames, outcomes_max)).collect()
}

/// What one transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Output sequence that the stored cursor must have, 0 for none: otherwise somebody else wrote
    /// the turn, nothing is written, and the cursor is read again.
    pub expected: u64,
    /// The rows.
    pub rows: TurnRows,
    /// The cursor beside them.
    pub cursor: Cursor,
}

/// A turn that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// Frames are missing, or come again.
    #[error("output frame {found} came, {wanted} was expected")]
    OutOfOrder {
        /// The next sequence.
        wanted: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The log does not go on from these tables.
    #[error(transparent)]
    Origin(#[from] OriginConflict),
    /// An outcome makes no rows.
    #[error(transparent)]
    Coalesce(#[from] CoalesceError),
}

/// A partition's tables and the log they follow. It lives until anything fails: then the cursor is
/// read again and another one starts there, which is always right, because tables and cursor are
/// written together.
#[derive(Debug, Clone)]
pub struct Follower {
    cursor: Option<Cursor>,
    /// What tables that have no cursor yet are built from.
    origin: Origin,
    stream_created: Timestamp,
    next: u64,
}

impl Follower {
    /// Compares the stored cursor with the logs and starts behind it.
    ///
    /// # Errors
    /// [`GuardError`] when log and tables do not belong together; it names the remedy.
    pub fn start(cursor: Option<Cursor>, logs: &Logs) -> Result<(Self, Start), GuardError> {
        let start = start(cursor.as_ref(), logs)?;
        let follower = Self {
            origin: match &cursor {
                Some(cursor) => cursor.origin,
                None => Origin::of_log(start.seq()),
            },
            cursor,
            stream_created: logs.input.created,
            next: start.seq(),
        };
        Ok((follower, start))
    }

    /// The cursor that is stored, as far as this follower knows.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The next output sequence.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Works out what these frames write. What the manifests pin that they name must be at hand.
    ///
    /// # Errors
    /// [`TurnError`]; no retry mends it.
    pub fn turn(&self, batch: &Batch, pinned: &PinnedSet) -> Result<Turn, TurnError> {
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
            coalesce(batch.outcomes(), pinned)?
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

    /// The turn is written: go on behind it.
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

    fn logs(first: u64) -> Logs {
        let identity = StreamIdentity {
            created: Timestamp::UNIX_EPOCH,
            first_seq: first,
            last_seq: 1_000,
        };
        Logs {
            input: identity,
            output: identity,
            msg_id: None,
        }
    }

    fn frame(seq: u64) -> Frame {
        Frame {
            seq,
            traceparent: None,
            frame: OutputFrame::new(1),
        }
    }

    fn turn(follower: &Follower, seqs: &[u64]) -> Result<Turn, TurnError> {
        let frames = seqs.iter().copied().map(frame).collect();
        follower.turn(&Batch { frames }, &PinnedSet::new())
    }

    #[test]
    fn every_turn_expects_the_cursor_of_the_one_before() {
        let (mut follower, _) = Follower::start(None, &logs(1)).unwrap();
        let first = turn(&follower, &[1, 2]).unwrap();
        assert_eq!((first.expected, first.cursor.out_seq), (0, 2));
        follower.written(first.cursor);
        let second = turn(&follower, &[3]).unwrap();
        assert_eq!((second.expected, second.cursor.out_seq), (2, 3));
    }

    #[test]
    fn frames_that_are_missing_or_come_again_make_no_turn() {
        let (follower, _) = Follower::start(None, &logs(1)).unwrap();
        let check = |seqs: &[u64], wanted, found| {
            let error = TurnError::OutOfOrder { wanted, found };
            assert_eq!(turn(&follower, seqs), Err(error));
        };
        check(&[2], 1, 2);
        check(&[1, 1], 2, 1);
        check(&[1, 3], 2, 3);
    }

    #[test]
    fn tables_that_know_more_than_the_owner_stop() {
        let (mut follower, _) = Follower::start(None, &logs(1)).unwrap();
        let first = turn(&follower, &[1]).unwrap();
        follower.written(first.cursor);
        let mut rebuilt = frame(2);
        rebuilt.frame.rebuilt_from = Some(2);
        rebuilt.frame.outcomes = vec![crate::cursor::tests::rejected(1)];
        let batch = Batch {
            frames: vec![rebuilt],
        };
        let error = follower.turn(&batch, &PinnedSet::new()).unwrap_err();
        assert!(matches!(error, TurnError::Origin(_)), "{error}");
    }

    #[test]
    fn tables_begun_in_a_trimmed_log_remember_where() {
        let (follower, start) = Follower::start(None, &logs(40)).unwrap();
        assert_eq!(start, Start::FromTrimmed(40));
        let turn = turn(&follower, &[40]).unwrap();
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
        let cut = batches(frames, 5);
        let seqs: Vec<Vec<u64>> = cut
            .iter()
            .map(|batch| batch.frames.iter().map(|frame| frame.seq).collect())
            .collect();
        assert_eq!(seqs, [vec![1, 2], vec![3, 4], vec![5]]);
    }
}
