//! The canonical form of JSON: what signatures and hashes cover.
//!
//! JSON Canonicalization Scheme over the received text. Input without a faithful canonical form is
//! refused, so that two readers of one signature can never see two different documents.
//!
//! Source: RFC 8785; docs/manifests.md, canonical form.

mod node;
mod number;
mod plain;
mod text;

use std::borrow::Cow;

use nixfleet_proto::ManifestHash;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

pub(crate) use node::Node;

/// Largest artifact in bytes: a fleet of a million hosts is about half of it.
pub const ARTIFACT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Deepest nesting of arrays and objects; the JSON parser's own stack guard is one above.
pub const DEPTH_MAX: usize = 127;

/// Why bytes have no canonical form.
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
        /// The parser's words, with line and column.
        message: String,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels at byte {offset}")]
    TooDeep {
        /// Where the first level too many opens.
        offset: usize,
    },
    /// An object names a key twice; readers differ in which one counts.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
    },
    /// Half of a surrogate pair: no Unicode text.
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
        /// What would happen to it.
        fault: NumberFault,
    },
}

/// What canonicalisation would do to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberFault {
    /// Beyond the range of a double.
    #[error("it is beyond the range of a double")]
    Overflow,
    /// Not zero, but too small for a double.
    #[error("it would become zero")]
    Underflow,
    /// An integer that no double prints as.
    #[error("the integer would become another one")]
    Inexact,
}

impl CanonicalizeError {
    /// True when the bytes are no JSON text at all, false when they are JSON without a canonical
    /// form.
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

/// The canonical bytes of a JSON text; borrowed when it is canonical already.
///
/// `-0` becomes `0`, as ECMAScript prints it. A fraction is rounded to the nearest double, as the
/// RFC's own examples require; an integer must keep its value, a number must not become zero or
/// infinite.
///
/// # Errors
/// Says why the text is refused; [`CanonicalizeError::is_parse`] tells broken text from JSON
/// without a canonical form.
///
/// Source: RFC 8785, sections 3.1 (I-JSON input) and 3.2.
pub fn canonicalize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CanonicalizeError> {
    let text = text_of(bytes)?;
    if plain::is_canonical(text) {
        return Ok(Cow::Borrowed(bytes));
    }
    Ok(Cow::Owned(Node::parse(text)?.canonical()))
}

/// Lower-case hexadecimal SHA-256 of the canonical bytes.
///
/// # Errors
/// As [`canonicalize`].
pub fn canonical_hash(bytes: &[u8]) -> Result<ManifestHash, CanonicalizeError> {
    Ok(hash_of(&canonicalize(bytes)?))
}

/// The hashes of an artifact, lower-case hexadecimal SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Of its canonical bytes.
    pub whole: ManifestHash,
    /// Of its content: the same without `meta` and `fleetResolvedHash`, which change with every signing.
    pub content: ManifestHash,
}

/// Hashes bytes that are canonical already; what both cover before they part is read once.
///
/// Source: docs/semantics.md, admission.
pub(crate) fn hashes_of(canonical: &[u8]) -> Hashes {
    let mut hash = Sha256::new();
    let Some(all) = members(canonical) else {
        let whole = hash_of(canonical);
        let content = whole.clone();
        return Hashes { whole, content };
    };
    let is_content = |(key, _): &(&[u8], &[u8])| !matches!(*key, b"meta" | b"fleetResolvedHash");
    let mut all = all.peekable();
    // What opens or parts members is one byte in front of each.
    let mut shared = 0;
    while let Some((_, member)) = all.next_if(is_content) {
        shared += 1 + member.len();
    }
    let (before, behind) = canonical.split_at(shared);
    hash.update(before);
    let mut content = hash.clone();
    let mut opens = shared == 0;
    for (_, member) in all.filter(is_content) {
        content.update(if opens { "{" } else { "," });
        content.update(member);
        opens = false;
    }
    content.update(if opens { "{}" } else { "}" });
    hash.update(behind);
    Hashes {
        whole: named(hash),
        content: named(content),
    }
}

fn named(hash: Sha256) -> ManifestHash {
    ManifestHash::from(hex::encode(hash.finalize()))
}

/// Keys and members of a canonical object, keys as they are written; `None` for any other value.
fn members(canonical: &[u8]) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
    let mut rest = canonical.strip_prefix(b"{")?;
    Some(std::iter::from_fn(move || {
        if !rest.starts_with(b"\"") {
            return None;
        }
        let key = string_end(rest, 0);
        let (member, behind) = rest.split_at(member_end(rest, key));
        // A comma, or the brace that closes the object.
        rest = &behind[1..];
        Some((&member[1..key - 1], member))
    }))
}

/// Index of the comma or brace behind a member whose key ends at `at`.
fn member_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b',' | b'}' if depth == 0 => return at,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// SHA-256 of bytes that are canonical already.
pub(crate) fn hash_of(canonical: &[u8]) -> ManifestHash {
    named(Sha256::new_with_prefix(canonical))
}

fn text_of(bytes: &[u8]) -> Result<&str, CanonicalizeError> {
    if bytes.len() > ARTIFACT_BYTES_MAX {
        return Err(CanonicalizeError::TooLarge { bytes: bytes.len() });
    }
    std::str::from_utf8(bytes).map_err(|error| CanonicalizeError::NotUtf8 {
        valid_up_to: error.valid_up_to(),
    })
}

/// Refuses a text that is not one JSON value of bounded depth with faithful numbers.
fn check(text: &str) -> Result<(), CanonicalizeError> {
    // The grammar first and on its own: it neither recurses nor decodes, so whatever fails later is
    // JSON that has no canonical form.
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| CanonicalizeError::NotJson {
        message: error.to_string(),
    })?;
    scan(text)
}

/// Walks the tokens of a valid JSON text and checks depth and numbers.
fn scan(text: &str) -> Result<(), CanonicalizeError> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0_usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(CanonicalizeError::TooDeep { offset: at });
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at);
                let literal = &text[at..end];
                number::check(literal).map_err(|fault| CanonicalizeError::Number {
                    literal: shortened(literal),
                    fault,
                })?;
                at = end;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Index after the closing quote of the string that opens at `open`.
fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(rest) = bytes.get(at..) {
        at += text::plain(rest);
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => break,
        }
    }
    at
}

/// Index after the number that begins at `start`.
fn number_end(bytes: &[u8], start: usize) -> usize {
    bytes[start..]
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .map_or(bytes.len(), |length| start + length)
}

/// At most 80 characters of a text, for messages.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    if text.chars().nth(CHARS_MAX).is_none() {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests;
