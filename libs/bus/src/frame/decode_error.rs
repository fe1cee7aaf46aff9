//! Why a message cannot be read.

/// Why a message is not what its stream should hold.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than any writer may send.
    #[error("{bytes} bytes are over the limit of {max}")]
    TooLarge {
        /// Size of the message.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// A layout this release does not know.
    #[error("layout version {0} is unknown")]
    Version(u32),
    /// More entries than any writer may send.
    #[error("{entries} entries are over the limit of {max}")]
    TooMany {
        /// Entries of the frame.
        entries: usize,
        /// Most entries.
        max: usize,
    },
    /// A frame without entries: no writer sends one.
    #[error("the frame is empty")]
    Empty,
    /// A stored form that this release does not know.
    #[error("its encoding {0:#04x} is unknown: a newer release wrote it; upgrade this one")]
    Encoding(u8),
    /// Not the compressed frame that its label announces.
    #[error("the compressed payload is damaged: {0}")]
    Compressed(&'static str),
    /// Not the JSON it should be.
    #[error("the payload is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl DecodeError {
    /// Name in metrics.
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
