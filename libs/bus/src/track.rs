//! Position keeping of a reader.

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

    /// True when the stream ends before what was already read.
    pub fn is_ahead_of(self, last_seq: u64) -> bool {
        self.next > last_seq + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
