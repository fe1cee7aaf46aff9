//! Errors that end a reader.

/// Why a reader cannot continue. The reader itself handles every fault that a new consumer fixes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The stream no longer holds the next message.
    #[error("{stream} was trimmed: expected sequence {wanted}, the first one is {first}")]
    Trimmed {
        /// The stream.
        stream: String,
        /// The next sequence of the reader.
        wanted: u64,
        /// The first sequence held.
        first: u64,
    },
    /// The stream has a gap where none is possible.
    #[error("{stream} has a gap: expected sequence {wanted}, got {found}")]
    Gap {
        /// The stream.
        stream: String,
        /// The next sequence of the reader.
        wanted: u64,
        /// The sequence that arrived.
        found: u64,
    },
    /// The stream ends before the reader's position: acknowledged messages were lost.
    #[error("{stream} lost its end: expected sequence {wanted}, the last one is {last}")]
    Regressed {
        /// The stream.
        stream: String,
        /// The next sequence of the reader.
        wanted: u64,
        /// The last sequence held.
        last: u64,
    },
    /// The sequence of a message that was read now belongs to another message: the stream lost its end and
    /// went on.
    #[error(
        "{stream} lost its end and went on: sequence {seq} is another message than the one read"
    )]
    Rewritten {
        /// The stream.
        stream: String,
        /// The sequence.
        seq: u64,
    },
    /// The stream was deleted and created again while it was read.
    #[error("{stream} was replaced by another stream of the same name")]
    Replaced {
        /// The stream.
        stream: String,
    },
    /// There is no such stream.
    #[error("there is no stream {stream}")]
    Missing {
        /// The stream.
        stream: String,
    },
}
