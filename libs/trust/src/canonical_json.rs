//! The canonical form of JSON, which signatures and hashes cover.
//!
//! Implements the JSON Canonicalization Scheme. Rejects input without an exact canonical form, so that
//! two readers of one signature never see different documents.
//!
//! Source: RFC 8785; docs/manifests.md, canonical form.

mod canonical_check;
mod canonical_writer;
mod error;
mod member_order;
mod number_check;
mod string_bytes;
mod string_escapes;
mod tokens;

use std::borrow::Cow;

use nixfleet_proto::ManifestHash;
use sha2::{Digest, Sha256};

pub use error::{ARTIFACT_BYTES_MAX, CanonicalizeError, DEPTH_MAX, NumberFault};

use member_order::MemberOrder;
use tokens::string_end;

/// The canonical bytes of a JSON text; borrowed when it is canonical already.
///
/// `-0` becomes `0`, as ECMAScript prints it. A fraction is rounded to the nearest double, as the
/// RFC's own examples require; an integer must keep its value, a number must not become zero or
/// infinite.
///
/// # Errors
/// The reason of the rejection; [`CanonicalizeError::is_parse`] distinguishes malformed text from JSON
/// without a canonical form.
///
/// Source: RFC 8785, sections 3.1 (I-JSON input) and 3.2.
pub fn canonicalize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CanonicalizeError> {
    Ok(CanonicalText::read(bytes)?.into_bytes())
}

/// A JSON text with a canonical form. Reading one takes less than four bytes of memory per byte, whatever the
/// text says: who wrote it is not known yet.
#[derive(Debug)]
pub(crate) struct CanonicalText<'a> {
    text: &'a str,
    /// `None` for a text that is canonical.
    order: Option<MemberOrder>,
}

impl<'a> CanonicalText<'a> {
    /// Checks a text.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, CanonicalizeError> {
        let text = text_of(bytes)?;
        let order = if canonical_check::is_canonical(text) {
            None
        } else {
            tokens::check(text)?;
            Some(MemberOrder::of(text)?)
        };
        Ok(Self { text, order })
    }

    /// Writes the canonical bytes piece by piece, which takes no memory.
    pub(crate) fn write_to(&self, sink: &mut dyn FnMut(&[u8])) {
        match &self.order {
            None => sink(self.text.as_bytes()),
            Some(order) => canonical_writer::write(self.text, order, sink),
        }
    }

    /// The canonical bytes.
    pub(crate) fn into_bytes(self) -> Cow<'a, [u8]> {
        if self.order.is_none() {
            return Cow::Borrowed(self.text.as_bytes());
        }
        let mut canonical = Vec::with_capacity(self.text.len());
        self.write_to(&mut |piece| canonical.extend_from_slice(piece));
        Cow::Owned(canonical)
    }
}

/// Lower-case hexadecimal SHA-256 of the canonical bytes.
pub fn canonical_hash(bytes: &[u8]) -> Result<ManifestHash, CanonicalizeError> {
    Ok(hash_of(&canonicalize(bytes)?))
}

/// The hashes of an artifact, lower-case hexadecimal SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashes {
    pub whole: ManifestHash,
    /// Hash of the content: without `meta` and `fleetResolvedHash`, which change with every signing.
    pub content: ManifestHash,
}

/// Hashes canonical bytes; hashes the common prefix of both forms once.
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
    // One byte, brace or comma, precedes each member.
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
        whole: to_manifest_hash(hash),
        content: to_manifest_hash(content),
    }
}

fn to_manifest_hash(hash: Sha256) -> ManifestHash {
    ManifestHash::from(hex::encode(hash.finalize()))
}

/// Raw keys and members of a canonical object; `None` for any other value.
fn members(canonical: &[u8]) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
    let mut rest = canonical.strip_prefix(b"{")?;
    Some(std::iter::from_fn(move || {
        if !rest.starts_with(b"\"") {
            return None;
        }
        let key = string_end(rest, 0);
        let (member, behind) = rest.split_at(member_end(rest, key));
        // Skips the comma, or the closing brace.
        rest = &behind[1..];
        Some((&member[1..key - 1], member))
    }))
}

/// Index of the comma or brace after a member whose key ends at `at`.
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

pub(crate) fn hash_of(canonical: &[u8]) -> ManifestHash {
    to_manifest_hash(Sha256::new_with_prefix(canonical))
}

fn text_of(bytes: &[u8]) -> Result<&str, CanonicalizeError> {
    if bytes.len() > ARTIFACT_BYTES_MAX {
        return Err(CanonicalizeError::TooLarge { bytes: bytes.len() });
    }
    std::str::from_utf8(bytes).map_err(|error| CanonicalizeError::NotUtf8 {
        valid_up_to: error.valid_up_to(),
    })
}

#[cfg(test)]
mod tests;
