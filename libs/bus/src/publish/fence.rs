//! A writer of an output log, and what each of its frames has to follow.
//!
//! A log that lost its end uses the sequences again, so that a sequence does not say which message
//! it is. A subject that one writer has for itself and a sequence do: a writer publishes one message
//! at a sequence.

/// The message that a fenced one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Its sequence; 0 in an empty log.
    pub seq: u64,
    /// Its subject, as far as it is known.
    pub subject: Option<String>,
}

/// One writer: an ownership has one, and another ownership another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWriter {
    subject: String,
    /// Sequence and subject of the last message, as it was last seen.
    last: Option<(u64, String)>,
}

impl LogWriter {
    /// A writer that publishes on a subject of its own, and has not looked at the log.
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

    /// The log ends with this message.
    pub fn observed(&mut self, seq: u64, subject: &str) {
        self.last = Some((seq, subject.to_owned()));
    }

    /// The log ends with a message of its own.
    pub fn stored(&mut self, seq: u64) {
        self.last = Some((seq, self.subject.clone()));
    }

    /// What a message is to be published behind, which has this sequence.
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
