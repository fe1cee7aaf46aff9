//! Errors that end a reader.

/// Why a reader cannot continue. The reader itself handles every fault that a new consumer fixes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ReadError {
    #[error("{stream} was trimmed: expected sequence {wanted}, the first one is {first}")]
    Trimmed {
        stream: String,
        wanted: u64,
        first: u64,
    },
    #[error("{stream} has a gap: expected sequence {wanted}, got {found}")]
    Gap {
        stream: String,
        wanted: u64,
        found: u64,
    },
    #[error("{stream} lost its end: expected sequence {wanted}, the last one is {last}")]
    Regressed {
        stream: String,
        wanted: u64,
        last: u64,
    },
    /// The sequence of a message that was read now belongs to another message: the stream lost its end and
    /// went on.
    #[error(
        "{stream} lost its end and went on: sequence {seq} is another message than the one read"
    )]
    Rewritten { stream: String, seq: u64 },
    #[error("{stream} was replaced by another stream of the same name")]
    Replaced { stream: String },
    #[error("there is no stream {stream}")]
    Missing { stream: String },
}
