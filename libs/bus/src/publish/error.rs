//! Why entries and frames were not appended.

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
