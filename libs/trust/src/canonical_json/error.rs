//! Errors and limits of the canonical form.

/// Largest artifact in bytes: a fleet of a million hosts is about half of it.
pub const ARTIFACT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Deepest nesting of arrays and objects, one below the limit of the JSON parser.
pub const DEPTH_MAX: usize = 127;

/// Error of canonicalization.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum CanonicalizeError {
    /// Larger than [`ARTIFACT_BYTES_MAX`].
    #[error("{bytes} bytes are more than the {ARTIFACT_BYTES_MAX} allowed")]
    TooLarge { bytes: usize },
    #[error("not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 { valid_up_to: usize },
    #[error("not JSON: {message}")]
    NotJson { message: String },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels at byte {offset}")]
    TooDeep { offset: usize },
    /// Of two equal keys, readers use different ones.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
    },
    #[error("lone surrogate in a string at line {line} column {column}")]
    LoneSurrogate {
        /// One-based line.
        line: usize,
        /// One-based column.
        column: usize,
    },
    #[error("number {literal} does not survive canonicalisation: {fault}")]
    Number {
        /// The number as written, shortened.
        literal: String,
        fault: NumberFault,
    },
}

/// Change of a number by canonicalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum NumberFault {
    #[error("it is beyond the range of a double")]
    Overflow,
    #[error("it would become zero")]
    Underflow,
    #[error("the integer would become another one")]
    Inexact,
}

impl CanonicalizeError {
    /// True for bytes that are not JSON; false for JSON without a canonical form.
    pub fn is_parse(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::NotUtf8 { .. } | Self::NotJson { .. } => true,
            Self::TooDeep { .. }
            | Self::DuplicateKey { .. }
            | Self::LoneSurrogate { .. }
            | Self::Number { .. } => false,
        }
    }
}
