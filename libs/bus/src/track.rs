//! Position keeping of a reader.

use nixfleet_proto::mutation_testing;

/// Whether sequences of a stream follow each other without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// Nothing is deleted from the middle: a hole means messages were missed.
    Never,
    /// A per-subject limit removes messages from the middle.
    Normal,
}

/// What to do with a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is the next one.
    Take,
    /// It was delivered before.
    Repeated,
    /// Messages before it are missing.
    Gap,
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    next: u64,
    gaps: Gaps,
}

impl Track {
    /// A reader that has not seen `next` yet.
    pub fn new(next: u64, gaps: Gaps) -> Self {
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
    pub fn see(&mut self, seq: u64) -> Seen {
        if seq < self.next {
            return Seen::Repeated;
        }
        if seq > self.next && self.gaps == Gaps::Never {
            return Seen::Gap;
        }
        self.next = seq + 1;
        Seen::Take
    }

    /// True when the stream no longer holds the next message.
    pub fn is_trimmed(self, first_seq: u64) -> bool {
        self.gaps == Gaps::Never && first_seq > self.next
    }

    /// True when nothing is removed from the middle of the stream.
    pub fn is_contiguous(self) -> bool {
        self.gaps == Gaps::Never
    }

    /// True when the stream ends before what was already read.
    pub fn is_ahead_of(self, last_seq: u64) -> bool {
        self.next > last_seq + 1
    }
}

/// The last message that was taken of a stream, to know it again by: one that lost its end and was
/// written again may be as long as before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landmark {
    taken: Option<(u64, String)>,
}

impl Landmark {
    /// Notes the message that was taken last. One without an id is nothing to go by.
    pub fn note(&mut self, seq: u64, msg_id: Option<&str>) {
        self.taken = msg_id.map(|id| (seq, id.to_owned()));
    }

    /// The sequence whose message id is to be held against [`Landmark::is_gone`] before anything
    /// behind it is read; absent when nothing was taken, or when it may have been trimmed.
    pub fn seq(&self, first_seq: u64) -> Option<u64> {
        let (seq, _) = self.taken.as_ref()?;
        (*seq >= first_seq).then_some(*seq)
    }

    /// True when the stream holds another message where the last one was taken. A stream that holds
    /// none there was trimmed, or is shorter, which [`Track`] tells.
    pub fn is_gone(&self, found: Option<&str>) -> bool {
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
        let mut landmark = Landmark::default();
        assert_eq!((landmark.seq(1), landmark.is_gone(None)), (None, false));
        landmark.note(7, Some("a/7"));
        assert_eq!((landmark.seq(1), landmark.seq(8)), (Some(7), None));
        assert!(!landmark.is_gone(Some("a/7")));
        assert!(landmark.is_gone(Some("b/1")) && !landmark.is_gone(None));
        landmark.note(8, None);
        assert_eq!((landmark.seq(1), landmark.is_gone(None)), (None, false));
    }

    #[test]
    fn every_sequence_is_taken_once_and_in_order() {
        let mut track = Track::new(5, Gaps::Never);
        let seen: Vec<_> = [4, 5, 5, 6, 8, 7, 8].map(|seq| track.see(seq)).into();
        use Seen::{Gap, Repeated, Take};
        assert_eq!(seen, [Repeated, Take, Repeated, Take, Gap, Take, Take]);
        assert_eq!(track.next(), 9);
    }

    #[test]
    fn holes_are_normal_where_subjects_are_limited() {
        let mut track = Track::new(0, Gaps::Normal);
        assert_eq!(track.see(4), Seen::Take);
        assert_eq!(track.see(9), Seen::Take);
        assert!(!track.is_trimmed(100));
    }

    #[test]
    fn a_reader_notices_a_trimmed_and_a_shortened_stream() {
        let track = Track::new(5, Gaps::Never);
        assert!(track.is_trimmed(6) && !track.is_trimmed(5));
        assert!(track.is_ahead_of(3) && !track.is_ahead_of(4));
    }
}
