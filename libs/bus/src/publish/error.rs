//! Errors of appending entries and publishing frames.

use crate::clock::{CLOCK_OFFSET_MAX, ClockOffset};

/// Why an entry was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log is at its size limit. Nothing was stored.
    #[error("the input log of partition {0} is full")]
    Full(String),
    /// No acknowledgement in time. The entry may be stored; a sender that repeats it relies on sequences to
    /// detect the duplicate.
    #[error("the input log cannot be reached: {0}")]
    Unavailable(String),
    /// The entry would be rejected for its time. Nothing was stored.
    #[error(
        "the clock of this service is {0}, more than {max} s: it appends nothing until one of them is corrected",
        max = CLOCK_OFFSET_MAX.num_seconds()
    )]
    Clock(ClockOffset),
    /// The entry does not fit in a frame. Nothing was stored.
    #[error("an entry of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Size of the entry.
        bytes: usize,
        /// Size limit.
        max: usize,
    },
}

/// Why a frame was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum PublishError {
    /// The log ends with another message than the expected one: this writer no longer owns the partition.
    #[error(
        "another writer appended: the last sequence is {last}, and this frame follows the message \
         that was at {expected}"
    )]
    Fenced {
        expected: u64,
        /// Last sequence of the log; equal to `expected` when the log lost its end and another writer went
        /// on.
        last: u64,
    },
    /// The message is larger than the limit. Nothing was stored; split it.
    #[error("a message of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    /// No answer in time. The message may be stored: read the last message before going on.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    #[error("the log {0} is full")]
    Full(String),
}
