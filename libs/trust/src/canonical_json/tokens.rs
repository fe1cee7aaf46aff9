//! Tokens of JSON text: their ends, and checks of depth and numbers.

use serde::de::IgnoredAny;

use super::error::{CanonicalizeError, DEPTH_MAX};
use super::{number_check, string_bytes};

/// Checks that a text is one JSON value of bounded depth with exact numbers.
pub(super) fn check(text: &str) -> Result<(), CanonicalizeError> {
    // Check the grammar first, without recursion or decoding: later failures are JSON without a canonical
    // form.
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| CanonicalizeError::NotJson {
        message: error.to_string(),
    })?;
    scan(text)
}

/// Checks depth and numbers of a valid JSON text.
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
                number_check::check(literal).map_err(|fault| CanonicalizeError::Number {
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
pub(super) fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(rest) = bytes.get(at..) {
        at += string_bytes::unescaped_prefix(rest);
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
pub(super) fn number_end(bytes: &[u8], start: usize) -> usize {
    bytes[start..]
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .map_or(bytes.len(), |length| start + length)
}

/// Index of the next byte that is no white space.
pub(super) fn end_of_whitespace(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    start + rest.iter().take_while(is_space).count()
}

/// At most 80 characters of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    if text.chars().nth(CHARS_MAX).is_none() {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    short.push('…');
    short
}
