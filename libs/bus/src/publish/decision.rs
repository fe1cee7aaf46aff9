//! What becomes of a publish: decisions on the server's answers, without a server.
//!
//! A retry of a message that was stored is answered by an error about the last sequence on one
//! replica and by `duplicate` on three, so neither answer says by itself whether a fenced message is
//! in the log. Only its last message does.

use std::fmt;

use nixfleet_proto::mutation_testing;

use crate::publish::fence::Fence;

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishRefusal {
    /// The stream is at its size limit; nothing was stored.
    Full,
    /// The message is over the server's limit; nothing was stored.
    TooLarge,
    /// The expected sequence is not the last one, or this very message is already stored.
    LastSequence,
    /// It will never succeed as it is; nothing was stored.
    Permanent(String),
    /// It may have been stored or not; the same message may be sent again.
    Unknown(String),
}

impl fmt::Display for PublishRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the stream is full"),
            Self::TooLarge => f.write_str("the message is too large"),
            Self::LastSequence => f.write_str("the last sequence is another one"),
            Self::Permanent(text) | Self::Unknown(text) => f.write_str(text),
        }
    }
}

/// The server's answer to one attempt to publish, or the lack of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishReply {
    /// The message is in the stream.
    Stored {
        /// Its sequence.
        seq: u64,
        /// It was there before this attempt.
        duplicate: bool,
    },
    /// It is not, or nobody knows.
    Refused(PublishRefusal),
}

/// What an attempt without a fence leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishDecision {
    /// The message has this sequence; whoever waits for it may be answered.
    Stored(u64),
    /// Nothing was stored and asking again does not help.
    Refused(PublishRefusal),
    /// The same message, with the same id, is sent again while there is time. After that its fate
    /// stays unknown.
    Retry(String),
}

impl PublishDecision {
    /// Judges the answer to a publish without a fence. The message id makes a repetition harmless.
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

/// A publish that only counts while the log's last message is the expected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FencedPublish<'a> {
    /// Its message id, the same in every attempt.
    pub id: &'a str,
    /// What it may follow.
    pub fence: &'a Fence,
}

/// What an attempt with a fence leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FencedDecision {
    /// The message has this sequence.
    Stored(u64),
    /// Nothing was stored by this attempt and asking again does not help.
    Refused(PublishRefusal),
    /// Read the last message through the leader and ask [`FencedPublish::check_last`].
    CheckLast(String),
    /// The same, of a log that is at its size limit.
    Full,
}

/// The last message of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMessage<'a> {
    /// Its sequence.
    pub seq: u64,
    /// Its subject.
    pub subject: &'a str,
    /// Its message id, when its publisher gave one.
    pub msg_id: Option<&'a str>,
}

/// Whose the last message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceCheck {
    /// It is this one, with this sequence.
    Stored(u64),
    /// The log stands where it was expected: the same message may be sent again.
    Retry,
    /// Somebody else wrote; the last sequence is this one.
    Fenced(u64),
}

impl FencedPublish<'_> {
    /// Judges the answer to one attempt: only a plain acknowledgement is believed.
    pub fn decide(&self, reply: PublishReply) -> FencedDecision {
        match reply {
            PublishReply::Stored {
                seq,
                duplicate: false,
            } => FencedDecision::Stored(seq),
            PublishReply::Stored {
                duplicate: true, ..
            } => FencedDecision::CheckLast("the server knows this message already".to_owned()),
            PublishReply::Refused(
                refusal @ (PublishRefusal::TooLarge | PublishRefusal::Permanent(_)),
            ) => FencedDecision::Refused(refusal),
            PublishReply::Refused(PublishRefusal::Full) => FencedDecision::Full,
            PublishReply::Refused(
                refusal @ (PublishRefusal::LastSequence | PublishRefusal::Unknown(_)),
            ) => FencedDecision::CheckLast(refusal.to_string()),
        }
    }

    /// True when this is the message to follow, as far as it is known.
    fn follows(&self, last: LastMessage<'_>) -> bool {
        let subject = self.fence.subject.as_deref();
        last.seq == self.fence.seq && subject.is_none_or(|subject| subject == last.subject)
    }

    /// Judges the last message of the log, read through the leader after an attempt.
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
    fn only_an_acknowledgement_stores_a_frame() {
        let stored = |duplicate| PublishReply::Stored { seq: 3, duplicate };
        assert_eq!(
            PublishDecision::of(stored(false)),
            PublishDecision::Stored(3)
        );
        // The stored message and this one are the same: it has one position.
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
    fn a_fenced_publish_believes_a_plain_acknowledgement_only() {
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
    fn the_last_message_tells_mine_from_another_writers() {
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
    fn another_message_at_the_expected_sequence_is_another_writers() {
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
