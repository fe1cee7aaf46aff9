//! Why reading ends.

/// Why a reader cannot go on. Everything that a new consumer can cure is cured inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The next message is not in the stream any more.
    #[error("{stream} was trimmed: wanted sequence {wanted}, the first one held is {first}")]
    Trimmed {
        /// The stream.
        stream: String,
        /// The next sequence of the reader.
        wanted: u64,
        /// The first sequence held.
        first: u64,
    },
    /// The stream has a hole where none can be.
    #[error("{stream} has a hole: wanted sequence {wanted}, got {found}")]
    Gap {
        /// The stream.
        stream: String,
        /// The next sequence of the reader.
        wanted: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The stream ends before the reader's position: acknowledged messages were lost.
    #[error("{stream} lost its end: wanted sequence {wanted}, the last one is {last}")]
    Regressed {
        /// The stream.
        stream: String,
        /// The next sequence of the reader.
        wanted: u64,
        /// The last sequence held.
        last: u64,
    },
    /// Another message has the sequence of one that was read: the stream lost its end and went on.
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
