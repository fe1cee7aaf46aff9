//! The writer of an output log and the fence of its frames.
//!
//! A log that lost its end reuses sequences, so a sequence alone does not identify a message. A sequence
//! and a subject that only one writer uses do, because a writer publishes one message per sequence.

/// The message that a fenced publish must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Its sequence; 0 in an empty log.
    pub seq: u64,
    /// Its subject, when it is known.
    pub subject: Option<String>,
}

/// One writer of an output log; every ownership of a partition has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWriter {
    subject: String,
    /// Sequence and subject of the last message that was observed.
    last: Option<(u64, String)>,
}

impl LogWriter {
    /// A writer with its own subject that has not read the log yet.
    pub fn new(subject: String) -> Self {
        Self {
            subject,
            last: None,
        }
    }

    /// Its subject.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Records the last message of the log.
    pub fn observed(&mut self, seq: u64, subject: &str) {
        self.last = Some((seq, subject.to_owned()));
    }

    /// Records that the last message of the log is one of this writer.
    pub fn stored(&mut self, seq: u64) {
        self.last = Some((seq, self.subject.clone()));
    }

    /// The fence of a message that follows the message with this sequence.
    pub fn fence(&self, seq: u64) -> Fence {
        let known = self.last.as_ref().filter(|(last, _)| *last == seq);
        Fence {
            seq,
            subject: known.map(|(_, subject)| subject.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_names_the_message_that_was_seen_last() {
        let fence = |seq, subject: Option<&str>| Fence {
            seq,
            subject: subject.map(str::to_owned),
        };
        let mut writer = LogWriter::new("me".to_owned());
        assert_eq!(writer.fence(0), fence(0, None));
        writer.observed(7, "you");
        assert_eq!(writer.fence(7), fence(7, Some("you")));
        assert_eq!(writer.fence(6), fence(6, None));
        writer.stored(8);
        assert_eq!(writer.fence(8), fence(8, Some("me")));
        assert_eq!(writer.fence(7), fence(7, None));
    }
}
