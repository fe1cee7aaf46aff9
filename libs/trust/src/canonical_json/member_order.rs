//! The canonical order of members, of objects that are not in it.

use std::cmp::Ordering;

use super::error::CanonicalizeError;
use super::string_escapes::Characters;
use super::tokens::{end_of_whitespace, shortened, string_end};

/// The canonical order of a text's members. Takes 4 bytes per member and 12 per object of those objects that are
/// not in canonical order, so that memory is bounded by the text's size whatever it nests.
#[derive(Debug, Default)]
pub(super) struct MemberOrder {
    /// Sorted by `start`.
    objects: Vec<UnorderedObject>,
    /// Offsets of keys.
    keys: Vec<u32>,
}

#[derive(Debug)]
struct UnorderedObject {
    /// Offset of the opening brace.
    start: u32,
    /// Place of its keys in [`MemberOrder::keys`].
    first_key: u32,
    key_count: u32,
}

impl MemberOrder {
    /// Reads a valid JSON text of bounded depth.
    pub(super) fn of(text: &str) -> Result<Self, CanonicalizeError> {
        let mut reading = Reading {
            text,
            open: Vec::new(),
            keys: Vec::new(),
            order: Self::default(),
        };
        reading.document()?;
        let mut order = reading.order;
        order.objects.sort_unstable_by_key(|object| object.start);
        Ok(order)
    }

    /// The keys of the object that opens at an offset, in canonical order; `None` when the text has them in that
    /// order.
    pub(super) fn keys_of(&self, start: usize) -> Option<&[u32]> {
        let found = self
            .objects
            .binary_search_by_key(&start, |object| object.start as usize);
        let object = &self.objects[found.ok()?];
        let keys = self.keys.get(object.first_key as usize..)?;
        keys.get(..object.key_count as usize)
    }
}

/// An open array, or an open object with its keys at the end of [`Reading::keys`].
struct Open {
    start: u32,
    first_key: usize,
    is_ordered: bool,
}

struct Reading<'t> {
    text: &'t str,
    open: Vec<Open>,
    /// Keys of all open objects.
    keys: Vec<u32>,
    order: MemberOrder,
}

impl Reading<'_> {
    fn document(&mut self) -> Result<(), CanonicalizeError> {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => at = self.string(at)?,
                b'{' | b'[' => {
                    self.open.push(Open {
                        start: offset(at),
                        first_key: self.keys.len(),
                        is_ordered: true,
                    });
                    at += 1;
                }
                b'}' | b']' => {
                    self.close()?;
                    at += 1;
                }
                _ => at += 1,
            }
        }
        Ok(())
    }

    /// Reads a string, which is a key when a colon follows; returns its end.
    fn string(&mut self, start: usize) -> Result<usize, CanonicalizeError> {
        let bytes = self.text.as_bytes();
        let end = string_end(bytes, start);
        let raw = &self.text[start + 1..end - 1];
        if raw.contains('\\') && Characters::new(raw).any(|character| character.is_err()) {
            return Err(self.lone_surrogate(start));
        }
        let next = end_of_whitespace(bytes, end);
        if bytes.get(next) == Some(&b':') {
            self.key(start);
        }
        Ok(end)
    }

    fn key(&mut self, start: usize) {
        let Some(open) = self.open.last_mut() else {
            return;
        };
        let key = offset(start);
        let before = self.keys.get(open.first_key..).unwrap_or_default().last();
        if let Some(before) = before {
            open.is_ordered &= compare_keys(self.text, *before, key) == Ordering::Less;
        }
        self.keys.push(key);
    }

    fn close(&mut self) -> Result<(), CanonicalizeError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        if !open.is_ordered {
            let keys = &mut self.keys[open.first_key..];
            keys.sort_unstable_by(|a, b| compare_keys(self.text, *a, *b));
            for pair in keys.windows(2) {
                if compare_keys(self.text, pair[0], pair[1]) == Ordering::Equal {
                    let key: String = Characters::new(raw_key(self.text, pair[0]))
                        .flatten()
                        .collect();
                    return Err(CanonicalizeError::DuplicateKey {
                        key: shortened(&key),
                    });
                }
            }
            self.order.objects.push(UnorderedObject {
                start: open.start,
                first_key: offset(self.order.keys.len()),
                key_count: offset(keys.len()),
            });
            self.order.keys.extend_from_slice(keys);
        }
        self.keys.truncate(open.first_key);
        Ok(())
    }

    fn lone_surrogate(&self, at: usize) -> CanonicalizeError {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        CanonicalizeError::LoneSurrogate {
            line: before.matches('\n').count() + 1,
            column: at - line_start + 1,
        }
    }
}

/// Compares by UTF-16 code units.
///
/// Source: RFC 8785, section 3.2.3.
fn compare_keys(text: &str, a: u32, b: u32) -> Ordering {
    let (a, b) = (raw_key(text, a), raw_key(text, b));
    let is_plain = |raw: &str| raw.is_ascii() && !raw.contains('\\');
    if is_plain(a) && is_plain(b) {
        return a.cmp(b);
    }
    code_units(a).cmp(code_units(b))
}

fn code_units(raw: &str) -> impl Iterator<Item = u16> {
    Characters::new(raw).flatten().flat_map(|character| {
        let mut units = [0; 2];
        let length = character.encode_utf16(&mut units).len();
        units.into_iter().take(length)
    })
}

fn raw_key(text: &str, start: u32) -> &str {
    let start = start as usize;
    &text[start + 1..string_end(text.as_bytes(), start) - 1]
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a text has at most ARTIFACT_BYTES_MAX bytes")
}
