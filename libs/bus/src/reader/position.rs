//! Position keeping of a reader.

use nixfleet_proto::mutation_testing;

/// Whether sequences of a stream follow each other without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceGaps {
    /// Nothing is deleted from the middle: a hole means messages were missed.
    Forbidden,
    /// A per-subject limit removes messages from the middle.
    Allowed,
}

/// What to do with a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the next one.
    Next,
    /// It was delivered before.
    Duplicate,
    /// Messages before it are missing.
    Gap,
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPosition {
    next: u64,
    gaps: SequenceGaps,
}

impl ReadPosition {
    /// A reader that has not seen `next` yet.
    pub fn new(next: u64, gaps: SequenceGaps) -> Self {
        Self {
            next: next.max(1),
            gaps,
        }
    }

    /// The first sequence not delivered yet.
    pub fn next(self) -> u64 {
        self.next
    }

    /// Judges a message and moves on when it is taken.
    pub fn observe(&mut self, seq: u64) -> Arrival {
        if seq < self.next {
            return Arrival::Duplicate;
        }
        if seq > self.next && self.gaps == SequenceGaps::Forbidden {
            return Arrival::Gap;
        }
        self.next = seq + 1;
        Arrival::Next
    }

    /// True when the stream no longer holds the next message.
    pub fn is_trimmed(self, first_seq: u64) -> bool {
        self.gaps == SequenceGaps::Forbidden && first_seq > self.next
    }

    /// True when nothing is removed from the middle of the stream.
    pub fn is_contiguous(self) -> bool {
        self.gaps == SequenceGaps::Forbidden
    }

    /// True when the stream ends before what was already read.
    pub fn is_ahead_of(self, last_seq: u64) -> bool {
        self.next > last_seq + 1
    }
}

/// The last message that was taken of a stream, to know it again by: one that lost its end and was
/// written again may be as long as before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastRead {
    taken: Option<(u64, String)>,
}

impl LastRead {
    /// Notes the message that was taken last. One without an id is nothing to go by.
    pub fn record(&mut self, seq: u64, msg_id: Option<&str>) {
        self.taken = msg_id.map(|id| (seq, id.to_owned()));
    }

    /// The sequence whose message id is to be held against [`LastRead::is_replaced`] before anything
    /// behind it is read; absent when nothing was taken, or when it may have been trimmed.
    pub fn seq_to_verify(&self, first_seq: u64) -> Option<u64> {
        let (seq, _) = self.taken.as_ref()?;
        (*seq >= first_seq).then_some(*seq)
    }

    /// True when the stream holds another message where the last one was taken. A stream that holds
    /// none there was trimmed, or is shorter, which [`ReadPosition`] tells.
    pub fn is_replaced(&self, found: Option<&str>) -> bool {
        let taken = self.taken.as_ref().map(|(_, id)| id.as_str());
        let is_other = taken.is_some_and(|taken| found.is_some_and(|found| found != taken));
        is_other && !mutation_testing::is_active("reader-trusts-log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_again_by_the_last_message_taken() {
        let mut last_read = LastRead::default();
        assert_eq!(
            (last_read.seq_to_verify(1), last_read.is_replaced(None)),
            (None, false)
        );
        last_read.record(7, Some("a/7"));
        assert_eq!(
            (last_read.seq_to_verify(1), last_read.seq_to_verify(8)),
            (Some(7), None)
        );
        assert!(!last_read.is_replaced(Some("a/7")));
        assert!(last_read.is_replaced(Some("b/1")) && !last_read.is_replaced(None));
        last_read.record(8, None);
        assert_eq!(
            (last_read.seq_to_verify(1), last_read.is_replaced(None)),
            (None, false)
        );
    }

    #[test]
    fn every_sequence_is_taken_once_and_in_order() {
        let mut position = ReadPosition::new(5, SequenceGaps::Forbidden);
        let seen: Vec<_> = [4, 5, 5, 6, 8, 7, 8]
            .map(|seq| position.observe(seq))
            .into();
        use Arrival::{Duplicate, Gap, Next};
        assert_eq!(seen, [Duplicate, Next, Duplicate, Next, Gap, Next, Next]);
        assert_eq!(position.next(), 9);
    }

    #[test]
    fn holes_are_normal_where_subjects_are_limited() {
        let mut position = ReadPosition::new(0, SequenceGaps::Allowed);
        assert_eq!(position.observe(4), Arrival::Next);
        assert_eq!(position.observe(9), Arrival::Next);
        assert!(!position.is_trimmed(100));
    }

    #[test]
    fn a_reader_notices_a_trimmed_and_a_shortened_stream() {
        let position = ReadPosition::new(5, SequenceGaps::Forbidden);
        assert!(position.is_trimmed(6) && !position.is_trimmed(5));
        assert!(position.is_ahead_of(3) && !position.is_ahead_of(4));
    }
}
