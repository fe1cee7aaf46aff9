//! What becomes of a publish: decisions on the server's answers, without a server.
//!
//! A retry of a message that was stored is answered by an error about the last sequence on one
//! replica and by `duplicate` on three, so neither answer says by itself whether a fenced message is
//! in the log. Only its last message does.

use std::fmt;

use nixfleet_proto::mutation_testing;

use crate::writer::Fence;

/// Why an entry has no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log is at its size limit. Nothing was stored.
    #[error("the input log of partition {0} is full")]
    Full(String),
    /// No acknowledgement in time. The entry may still be stored; whoever sends it again relies on
    /// sequences to be recognised.
    #[error("the input log cannot be reached: {0}")]
    Unavailable(String),
    /// The entry does not fit in a frame. Nothing was stored.
    #[error("an entry of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Size of the entry.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
}

/// Why a frame was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The log ends with another message than the expected one: this writer is not the owner any
    /// more.
    #[error(
        "another writer appended: the last sequence is {last}, and this frame follows the message \
         that was at {expected}"
    )]
    Fenced {
        /// The sequence this writer expected.
        expected: u64,
        /// The one that is there; the same when the log lost its end and another writer went on.
        last: u64,
    },
    /// The message is over the limit. Nothing was stored; split the run.
    #[error("a message of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// No answer in time. The message may be stored or not: read the last one before going on.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// The log stayed at its size limit.
    #[error("the log {0} is full")]
    Full(String),
}

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The stream is at its size limit; nothing was stored.
    Full,
    /// The message is over the server's limit; nothing was stored.
    TooLarge,
    /// The expected sequence is not the last one, or this very message is already stored.
    Fence,
    /// It will never succeed as it is; nothing was stored.
    Hopeless(String),
    /// It may have been stored or not; the same message may be sent again.
    Unknown(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the stream is full"),
            Self::TooLarge => f.write_str("the message is too large"),
            Self::Fence => f.write_str("the last sequence is another one"),
            Self::Hopeless(text) | Self::Unknown(text) => f.write_str(text),
        }
    }
}

/// The server's answer to one attempt to publish, or the lack of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The message is in the stream.
    Stored {
        /// Its sequence.
        seq: u64,
        /// It was there before this attempt.
        duplicate: bool,
    },
    /// It is not, or nobody knows.
    Refused(Refusal),
}

/// What an attempt without a fence leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The message has this sequence; whoever waits for it may be answered.
    Stored(u64),
    /// Nothing was stored and asking again does not help.
    Refused(Refusal),
    /// The same message, with the same id, is sent again while there is time. After that its fate
    /// stays unknown.
    Again(String),
}

impl Attempt {
    /// Judges the answer to a publish without a fence. The message id makes a repetition harmless.
    pub fn of(reply: Reply) -> Self {
        match reply {
            Reply::Stored { seq, .. } => Self::Stored(seq),
            Reply::Refused(Refusal::Unknown(_))
                if mutation_testing::is_active("bus-ack-unknown") =>
            {
                Self::Stored(0)
            }
            Reply::Refused(
                refusal @ (Refusal::Full | Refusal::TooLarge | Refusal::Hopeless(_)),
            ) => Self::Refused(refusal),
            Reply::Refused(refusal @ (Refusal::Fence | Refusal::Unknown(_))) => {
                Self::Again(refusal.to_string())
            }
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
pub enum FencedAttempt {
    /// The message has this sequence.
    Stored(u64),
    /// Nothing was stored by this attempt and asking again does not help.
    Refused(Refusal),
    /// Read the last message through the leader and ask [`FencedPublish::settled`].
    Ask(String),
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
pub enum Settled {
    /// It is this one, with this sequence.
    Mine(u64),
    /// The log stands where it was expected: the same message may be sent again.
    Again,
    /// Somebody else wrote; the last sequence is this one.
    Fenced(u64),
}

impl FencedPublish<'_> {
    /// Judges the answer to one attempt: only a plain acknowledgement is believed.
    pub fn answered(&self, reply: Reply) -> FencedAttempt {
        match reply {
            Reply::Stored {
                seq,
                duplicate: false,
            } => FencedAttempt::Stored(seq),
            Reply::Stored {
                duplicate: true, ..
            } => FencedAttempt::Ask("the server knows this message already".to_owned()),
            Reply::Refused(refusal @ (Refusal::TooLarge | Refusal::Hopeless(_))) => {
                FencedAttempt::Refused(refusal)
            }
            Reply::Refused(Refusal::Full) => FencedAttempt::Full,
            Reply::Refused(refusal @ (Refusal::Fence | Refusal::Unknown(_))) => {
                FencedAttempt::Ask(refusal.to_string())
            }
        }
    }

    /// True when this is the message to follow, as far as it is known.
    fn follows(&self, last: LastMessage<'_>) -> bool {
        let subject = self.fence.subject.as_deref();
        last.seq == self.fence.seq && subject.is_none_or(|subject| subject == last.subject)
    }

    /// Judges the last message of the log, read through the leader after an attempt.
    pub fn settled(&self, last: Option<LastMessage<'_>>) -> Settled {
        match last {
            Some(last) if last.msg_id == Some(self.id) => Settled::Mine(last.seq),
            Some(last) if mutation_testing::is_active("bus-any-last-is-mine") => {
                Settled::Mine(last.seq)
            }
            Some(last) if self.follows(last) => Settled::Again,
            None if self.fence.seq == 0 => Settled::Again,
            other => Settled::Fenced(other.map_or(0, |last| last.seq)),
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

    fn refused(refusal: Refusal) -> Reply {
        Reply::Refused(refusal)
    }

    fn unknown() -> Refusal {
        Refusal::Unknown("timed out".to_owned())
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
        let stored = |duplicate| Reply::Stored { seq: 3, duplicate };
        assert_eq!(Attempt::of(stored(false)), Attempt::Stored(3));
        // The stored message and this one are the same: it has one position.
        assert_eq!(Attempt::of(stored(true)), Attempt::Stored(3));
        for refusal in [Refusal::Full, Refusal::TooLarge] {
            let expected = Attempt::Refused(refusal.clone());
            assert_eq!(Attempt::of(refused(refusal)), expected);
        }
        assert_eq!(
            Attempt::of(refused(unknown())),
            Attempt::Again("timed out".to_owned())
        );
        assert!(matches!(
            Attempt::of(refused(Refusal::Fence)),
            Attempt::Again(_)
        ));
    }

    #[test]
    fn a_fenced_publish_believes_a_plain_acknowledgement_only() {
        let stored = |duplicate| Reply::Stored { seq: 8, duplicate };
        assert_eq!(MINE.answered(stored(false)), FencedAttempt::Stored(8));
        assert_eq!(MINE.answered(refused(Refusal::Full)), FencedAttempt::Full);
        for reply in [stored(true), refused(Refusal::Fence), refused(unknown())] {
            let attempt = MINE.answered(reply);
            assert!(matches!(attempt, FencedAttempt::Ask(_)), "{attempt:?}");
        }
        let hopeless = Refusal::Hopeless("sealed".to_owned());
        for refusal in [Refusal::TooLarge, hopeless] {
            let expected = FencedAttempt::Refused(refusal.clone());
            assert_eq!(MINE.answered(refused(refusal)), expected);
        }
    }

    #[test]
    fn the_last_message_tells_mine_from_another_writers() {
        for (last, expected) in [
            (last(8, Some("me/1")), Settled::Mine(8)),
            (last(7, Some("me/0")), Settled::Again),
            (last(7, None), Settled::Again),
            (last(8, Some("you/5")), Settled::Fenced(8)),
            (last(9, None), Settled::Fenced(9)),
            (last(5, Some("me/0")), Settled::Fenced(5)),
            (None, Settled::Fenced(0)),
        ] {
            assert_eq!(MINE.settled(last), expected, "{last:?}");
        }
        let empty = Fence {
            seq: 0,
            subject: None,
        };
        let first = FencedPublish {
            id: "me/0",
            fence: &empty,
        };
        assert_eq!(first.settled(None), Settled::Again);
    }

    #[test]
    fn another_message_at_the_expected_sequence_is_another_writers() {
        let check = |subject: &str, expected: Settled| {
            let fence = Fence {
                seq: 7,
                subject: Some(subject.to_owned()),
            };
            let (id, fence) = ("me/1", &fence);
            let settled = FencedPublish { id, fence }.settled(last(7, Some("you/4")));
            assert_eq!(settled, expected, "{subject}");
        };
        check("you", Settled::Again);
        check("me", Settled::Fenced(7));
    }
}
