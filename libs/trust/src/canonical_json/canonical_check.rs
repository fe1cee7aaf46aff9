//! Fast check for canonical text, such as every stored artifact.
//!
//! One pass without memory. May reject canonical text: callers then look at the order of members.

use super::canonical_writer::canonical_number;
use super::error::DEPTH_MAX;
use super::string_bytes;
use super::tokens::number_end;

/// True when the text is known to be canonical.
///
/// Rejects keys other than plain ASCII, which are ordered by UTF-16 code units.
pub(super) fn is_canonical(text: &str) -> bool {
    let scanner = Scanner {
        text,
        at: 0,
        open: Vec::new(),
    };
    scanner.document().is_some()
}

/// An open array, or an open object with its last key, which the next key must exceed.
enum Open<'a> {
    Array,
    Object(&'a [u8]),
}

/// Scanner over the text. Every step returns `None` when the text may not be canonical.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open<'a>>,
}

impl<'a> Scanner<'a> {
    fn document(mut self) -> Option<()> {
        loop {
            if self.begin()? {
                continue;
            }
            while self.end()? {}
            if self.open.is_empty() {
                return (self.at == self.text.len()).then_some(());
            }
        }
    }

    /// Scans a value; true when it opened a non-empty array or object.
    fn begin(&mut self) -> Option<bool> {
        match self.next()? {
            b'"' => self.string()?,
            b'{' => return self.opened(b'}'),
            b'[' => return self.opened(b']'),
            b't' => self.rest("rue")?,
            b'f' => self.rest("alse")?,
            b'n' => self.rest("ull")?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return None,
        }
        Some(false)
    }

    fn opened(&mut self, close: u8) -> Option<bool> {
        if self.open.len() == DEPTH_MAX {
            return None;
        }
        if self.peek()? == close {
            self.at += 1;
            return Some(false);
        }
        let open = match close {
            b'}' => Open::Object(self.key()?),
            _ => Open::Array,
        };
        self.open.push(open);
        Some(true)
    }

    /// Scans the end of a value; true when it closed an array or object.
    fn end(&mut self) -> Option<bool> {
        if self.open.is_empty() {
            return Some(false);
        }
        let next = self.next()?;
        let key = match (self.open.last()?, next) {
            (Open::Array, b']') | (Open::Object(_), b'}') => {
                self.open.pop();
                return Some(true);
            }
            (Open::Array, b',') => return Some(false),
            (Open::Object(last), b',') => {
                let last = *last;
                self.key().filter(|key| *key > last)?
            }
            _ => return None,
        };
        *self.open.last_mut()? = Open::Object(key);
        Some(false)
    }

    /// Scans a key and its colon.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.rest("\"")?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| *byte == b'"')?;
        let key = &rest[..length];
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
        self.at += length + 1;
        self.rest(":")?;
        key.iter().all(is_plain).then_some(key)
    }

    /// Scans the rest of a string with its closing quote.
    fn string(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        loop {
            self.at += string_bytes::unescaped_prefix(&bytes[self.at..]);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    /// Scans an escape after its backslash; fails when a shorter form exists.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                self.rest("00")?;
                match (self.next()?, self.next()?) {
                    // These have short escapes.
                    (b'0', b'8' | b'9' | b'a' | b'c' | b'd') => None,
                    (b'0' | b'1', b'0'..=b'9' | b'a'..=b'f') => Some(()),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Scans a number after its first character.
    fn number(&mut self) -> Option<()> {
        let start = self.at - 1;
        self.at = number_end(self.text.as_bytes(), start);
        let literal = &self.text[start..self.at];
        let is_small = literal.len() <= 15 && literal.bytes().all(|byte| byte.is_ascii_digit());
        if is_small && (literal.len() == 1 || !literal.starts_with('0')) {
            return Some(());
        }
        let value: f64 = literal
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())?;
        (canonical_number(value) == literal.as_bytes()).then_some(())
    }

    fn rest(&mut self, expected: &str) -> Option<()> {
        let rest = self.text.as_bytes()[self.at..].strip_prefix(expected.as_bytes());
        self.at += expected.len();
        rest.map(drop)
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
