//! Decisions on the server's replies to a publish, as plain values.
//!
//! The server answers a retry of a stored message with an error about the last sequence on one replica, and
//! with `duplicate` on three. Neither reply tells whether a fenced message is in the log; only the last
//! message of the log does.

use nixfleet_proto::mutation_testing;

use crate::publish::log_writer::Fence;

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishRefusal {
    /// Nothing was stored.
    #[error("the stream is full")]
    Full,
    /// The message is over the server's limit; nothing was stored.
    #[error("the message is too large")]
    TooLarge,
    /// The expected sequence is not the last one, or this message is already stored.
    #[error("the last sequence is another one")]
    LastSequence,
    /// The message can never be stored as it is; nothing was stored.
    #[error("{0}")]
    Permanent(String),
    /// The message may be stored or not; it may be sent again with the same id.
    #[error("{0}")]
    Unknown(String),
}

/// The server's reply to one publish attempt, or its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishReply {
    /// The message is in the stream.
    Stored {
        /// Its sequence.
        seq: u64,
        /// True when it was stored before this attempt.
        duplicate: bool,
    },
    /// The message is not in the stream, or its state is unknown.
    Refused(PublishRefusal),
}

/// Decision after an unfenced attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishDecision {
    /// The message has this sequence; its waiters may be answered.
    Stored(u64),
    /// Nothing was stored, and a retry does not help.
    Refused(PublishRefusal),
    /// Send the same message with the same id again before the deadline. After the deadline its state stays
    /// unknown.
    Retry(String),
}

impl PublishDecision {
    /// Decides on the reply to an unfenced publish. The message id makes repetition harmless.
    pub fn of(reply: PublishReply) -> Self {
        match reply {
            PublishReply::Stored { seq, .. } => Self::Stored(seq),
            PublishReply::Refused(PublishRefusal::Unknown(_))
                if mutation_testing::is_active("bus-ack-unknown") =>
            {
                Self::Stored(0)
            }
            PublishReply::Refused(
                refusal @ (PublishRefusal::Full
                | PublishRefusal::TooLarge
                | PublishRefusal::Permanent(_)),
            ) => Self::Refused(refusal),
            PublishReply::Refused(
                refusal @ (PublishRefusal::LastSequence | PublishRefusal::Unknown(_)),
            ) => Self::Retry(refusal.to_string()),
        }
    }
}

/// A publish that is valid only while the log's last message is the expected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FencedPublish<'a> {
    /// Message id, the same in every attempt.
    pub id: &'a str,
    /// The message it must follow.
    pub fence: &'a Fence,
}

/// Decision after a fenced attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FencedDecision {
    /// The message has this sequence.
    Stored(u64),
    /// This attempt stored nothing, and a retry does not help.
    Refused(PublishRefusal),
    /// Read the last message through the leader and pass it to [`FencedPublish::check_last`].
    CheckLast(String),
    /// Like [`FencedDecision::CheckLast`]; the log is at its size limit.
    Full,
}

/// The last message of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMessage<'a> {
    /// Its sequence.
    pub seq: u64,
    /// Its subject.
    pub subject: &'a str,
    /// Its message id, when the publisher set one.
    pub msg_id: Option<&'a str>,
}

/// Result of comparing a fenced publish with the last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceCheck {
    /// The last message is this publish, with this sequence.
    Stored(u64),
    /// The last message is the expected one: the same message may be sent again.
    Retry,
    /// Another writer appended; the last sequence is this one.
    Fenced(u64),
}

impl FencedPublish<'_> {
    /// Decides on the reply to one attempt. Only an acknowledgement that is no duplicate proves that the
    /// message is stored.
    pub fn decide(&self, reply: PublishReply) -> FencedDecision {
        match reply {
            PublishReply::Stored {
                seq,
                duplicate: false,
            } => FencedDecision::Stored(seq),
            PublishReply::Stored {
                duplicate: true, ..
            } => FencedDecision::CheckLast("the server reports a duplicate".to_owned()),
            PublishReply::Refused(
                refusal @ (PublishRefusal::TooLarge | PublishRefusal::Permanent(_)),
            ) => FencedDecision::Refused(refusal),
            PublishReply::Refused(PublishRefusal::Full) => FencedDecision::Full,
            PublishReply::Refused(
                refusal @ (PublishRefusal::LastSequence | PublishRefusal::Unknown(_)),
            ) => FencedDecision::CheckLast(refusal.to_string()),
        }
    }

    /// True when the last message is the expected one, as far as the fence knows it.
    fn follows(&self, last: LastMessage<'_>) -> bool {
        let subject = self.fence.subject.as_deref();
        last.seq == self.fence.seq && subject.is_none_or(|subject| subject == last.subject)
    }

    /// Compares this publish with the last message of the log, read through the leader after an attempt.
    pub fn check_last(&self, last: Option<LastMessage<'_>>) -> FenceCheck {
        match last {
            Some(last) if last.msg_id == Some(self.id) => FenceCheck::Stored(last.seq),
            Some(last) if mutation_testing::is_active("bus-any-last-is-mine") => {
                FenceCheck::Stored(last.seq)
            }
            Some(last) if self.follows(last) => FenceCheck::Retry,
            None if self.fence.seq == 0 => FenceCheck::Retry,
            other => FenceCheck::Fenced(other.map_or(0, |last| last.seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: Fence = Fence {
        seq: 7,
        subject: None,
    };
    const MINE: FencedPublish<'_> = FencedPublish {
        id: "me/1",
        fence: &NUMBER,
    };

    fn refused(refusal: PublishRefusal) -> PublishReply {
        PublishReply::Refused(refusal)
    }

    fn unknown() -> PublishRefusal {
        PublishRefusal::Unknown("timed out".to_owned())
    }

    fn last(seq: u64, msg_id: Option<&str>) -> Option<LastMessage<'_>> {
        let subject = "you";
        Some(LastMessage {
            seq,
            subject,
            msg_id,
        })
    }

    #[test]
    fn only_an_acknowledgement_proves_a_frame_stored() {
        let stored = |duplicate| PublishReply::Stored { seq: 3, duplicate };
        assert_eq!(
            PublishDecision::of(stored(false)),
            PublishDecision::Stored(3)
        );
        // A duplicate is the same message, so both have one position.
        assert_eq!(
            PublishDecision::of(stored(true)),
            PublishDecision::Stored(3)
        );
        for refusal in [PublishRefusal::Full, PublishRefusal::TooLarge] {
            let expected = PublishDecision::Refused(refusal.clone());
            assert_eq!(PublishDecision::of(refused(refusal)), expected);
        }
        assert_eq!(
            PublishDecision::of(refused(unknown())),
            PublishDecision::Retry("timed out".to_owned())
        );
        assert!(matches!(
            PublishDecision::of(refused(PublishRefusal::LastSequence)),
            PublishDecision::Retry(_)
        ));
    }

    #[test]
    fn only_a_plain_acknowledgement_proves_a_fenced_publish_stored() {
        let stored = |duplicate| PublishReply::Stored { seq: 8, duplicate };
        assert_eq!(MINE.decide(stored(false)), FencedDecision::Stored(8));
        assert_eq!(
            MINE.decide(refused(PublishRefusal::Full)),
            FencedDecision::Full
        );
        for reply in [
            stored(true),
            refused(PublishRefusal::LastSequence),
            refused(unknown()),
        ] {
            let attempt = MINE.decide(reply);
            assert!(
                matches!(attempt, FencedDecision::CheckLast(_)),
                "{attempt:?}"
            );
        }
        let hopeless = PublishRefusal::Permanent("sealed".to_owned());
        for refusal in [PublishRefusal::TooLarge, hopeless] {
            let expected = FencedDecision::Refused(refusal.clone());
            assert_eq!(MINE.decide(refused(refusal)), expected);
        }
    }

    #[test]
    fn the_last_message_tells_whether_the_publish_is_stored() {
        for (last, expected) in [
            (last(8, Some("me/1")), FenceCheck::Stored(8)),
            (last(7, Some("me/0")), FenceCheck::Retry),
            (last(7, None), FenceCheck::Retry),
            (last(8, Some("you/5")), FenceCheck::Fenced(8)),
            (last(9, None), FenceCheck::Fenced(9)),
            (last(5, Some("me/0")), FenceCheck::Fenced(5)),
            (None, FenceCheck::Fenced(0)),
        ] {
            assert_eq!(MINE.check_last(last), expected, "{last:?}");
        }
        let empty = Fence {
            seq: 0,
            subject: None,
        };
        let first = FencedPublish {
            id: "me/0",
            fence: &empty,
        };
        assert_eq!(first.check_last(None), FenceCheck::Retry);
    }

    #[test]
    fn another_subject_at_the_expected_sequence_is_fenced() {
        let check = |subject: &str, expected: FenceCheck| {
            let fence = Fence {
                seq: 7,
                subject: Some(subject.to_owned()),
            };
            let (id, fence) = ("me/1", &fence);
            let settled = FencedPublish { id, fence }.check_last(last(7, Some("you/4")));
            assert_eq!(settled, expected, "{subject}");
        };
        check("you", FenceCheck::Retry);
        check("me", FenceCheck::Fenced(7));
    }
}
