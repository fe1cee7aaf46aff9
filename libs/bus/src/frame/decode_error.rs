//! Errors of decoding a message.

/// Why a message is not a document of its stream.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than any writer may send.
    #[error("{bytes} bytes are over the limit of {max}")]
    TooLarge {
        /// Size of the message.
        bytes: usize,
        /// Size limit.
        max: usize,
    },
    /// A layout version that this release does not know.
    #[error("layout version {0} is unknown")]
    Version(u32),
    /// More entries than any writer may send.
    #[error("{entries} entries are over the limit of {max}")]
    TooMany {
        /// Entries of the frame.
        entries: usize,
        /// Limit of entries.
        max: usize,
    },
    /// A frame without entries: no writer sends one.
    #[error("the frame is empty")]
    Empty,
    /// A stored form that this release does not know.
    #[error("its encoding {0:#04x} is unknown: a newer release wrote it; upgrade this one")]
    Encoding(u8),
    /// The bytes behind the label are not the compressed frame that it announces.
    #[error("the compressed payload is damaged: {0}")]
    Compressed(&'static str),
    /// The payload is not the expected JSON.
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
            Self::Malformed(_) => "malformed",
        }
    }
}
