//! Errors and limits of the canonical form.

/// Largest artifact in bytes: a fleet of a million hosts is about half of it.
pub const ARTIFACT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Deepest nesting of arrays and objects, one below the limit of the JSON parser.
pub const DEPTH_MAX: usize = 127;

/// Error of canonicalization.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalizeError {
    /// Larger than [`ARTIFACT_BYTES_MAX`].
    #[error("{bytes} bytes are more than the {ARTIFACT_BYTES_MAX} allowed")]
    TooLarge {
        /// Size of the input.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// Bytes before the first invalid one.
        valid_up_to: usize,
    },
    /// Not one JSON value: truncated, malformed or followed by more.
    #[error("not JSON: {message}")]
    NotJson {
        /// Message of the parser, with line and column.
        message: String,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels at byte {offset}")]
    TooDeep {
        /// Offset of the first excess level.
        offset: usize,
    },
    /// An object has a key twice, of which readers use different ones.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
    },
    /// Half of a surrogate pair: not valid Unicode.
    #[error("lone surrogate in a string at line {line} column {column}")]
    LoneSurrogate {
        /// One-based line.
        line: usize,
        /// One-based column.
        column: usize,
    },
    /// A number that the canonical form would change.
    #[error("number {literal} does not survive canonicalisation: {fault}")]
    Number {
        /// The number as written, shortened.
        literal: String,
        /// The change.
        fault: NumberFault,
    },
}

/// Change of a number by canonicalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberFault {
    /// Beyond the range of a double.
    #[error("it is beyond the range of a double")]
    Overflow,
    /// Not zero, but too small for a double.
    #[error("it would become zero")]
    Underflow,
    /// An integer without an exact double.
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
