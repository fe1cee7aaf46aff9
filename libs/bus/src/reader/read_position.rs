//! The position of a reader.

use nixfleet_proto::mutation_testing;

/// Whether a stream may have gaps between its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceGaps {
    /// Messages are never deleted from the middle: a gap means that messages were missed.
    Forbidden,
    /// A limit per subject removes messages from the middle.
    Allowed,
}

/// Classification of a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the next one.
    Next,
    /// It was delivered before.
    Duplicate,
    /// Messages before it are missing.
    Gap,
}

/// Next sequence that a reader expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPosition {
    next: u64,
    gaps: SequenceGaps,
}

impl ReadPosition {
    /// A position before the message `next`.
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

    /// Classifies a message, and advances when it is the next one.
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

    /// True when messages are never removed from the middle of the stream.
    pub fn is_contiguous(self) -> bool {
        self.gaps == SequenceGaps::Forbidden
    }

    /// True when the stream ends before the last message that was read.
    pub fn is_ahead_of(self, last_seq: u64) -> bool {
        self.next > last_seq + 1
    }
}

/// The last message that was read. A stream that lost its end and was written again may have the same
/// length, so the sequence alone does not identify it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastRead {
    taken: Option<(u64, String)>,
}

impl LastRead {
    /// Records the message that was read last. A message without an id cannot be identified later.
    pub fn record(&mut self, seq: u64, msg_id: Option<&str>) {
        self.taken = msg_id.map(|id| (seq, id.to_owned()));
    }

    /// Sequence whose message id must be checked with [`LastRead::is_replaced`] before reading on; `None`
    /// when nothing was read, or when the message may have been trimmed.
    pub fn seq_to_verify(&self, first_seq: u64) -> Option<u64> {
        let (seq, _) = self.taken.as_ref()?;
        (*seq >= first_seq).then_some(*seq)
    }

    /// True when the stream holds another message at this sequence. A stream without a message there was
    /// trimmed or is shorter, which [`ReadPosition`] detects.
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
    fn the_last_message_read_identifies_the_stream() {
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
    fn every_sequence_is_delivered_once_and_in_order() {
        let mut position = ReadPosition::new(5, SequenceGaps::Forbidden);
        let seen: Vec<_> = [4, 5, 5, 6, 8, 7, 8]
            .map(|seq| position.observe(seq))
            .into();
        use Arrival::{Duplicate, Gap, Next};
        assert_eq!(seen, [Duplicate, Next, Duplicate, Next, Gap, Next, Next]);
        assert_eq!(position.next(), 9);
    }

    #[test]
    fn gaps_are_accepted_where_subjects_are_limited() {
        let mut position = ReadPosition::new(0, SequenceGaps::Allowed);
        assert_eq!(position.observe(4), Arrival::Next);
        assert_eq!(position.observe(9), Arrival::Next);
        assert!(!position.is_trimmed(100));
    }

    #[test]
    fn a_trimmed_and_a_shortened_stream_are_detected() {
        let position = ReadPosition::new(5, SequenceGaps::Forbidden);
        assert!(position.is_trimmed(6) && !position.is_trimmed(5));
        assert!(position.is_ahead_of(3) && !position.is_ahead_of(4));
    }
}
