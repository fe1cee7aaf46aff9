//! Errors of decoding a message.

/// Why a message is not a document of its stream.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum DecodeError {
    #[error("{bytes} bytes are over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("layout version {0} is unknown")]
    Version(u32),
    #[error("{entries} entries are over the limit of {max}")]
    TooMany { entries: usize, max: usize },
    #[error("the frame is empty")]
    Empty,
    #[error("its encoding {0:#04x} is unknown: a newer release wrote it; upgrade this one")]
    Encoding(u8),
    #[error("the compressed payload is damaged: {0}")]
    Compressed(&'static str),
    #[error(
        "an entry {entry} is on a subject for entries of class {class:?}: its writer may not write it"
    )]
    Subject { entry: &'static str, class: String },
    #[error("the payload is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl DecodeError {
    /// Label in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Version(_) => "version",
            Self::TooMany { .. } => "too-many",
            Self::Empty => "empty",
            Self::Encoding(_) => "encoding",
            Self::Compressed(_) => "compressed",
            Self::Subject { .. } => "subject",
            Self::Malformed(_) => "malformed",
        }
    }
}
