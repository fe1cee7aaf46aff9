//! Text that is canonical already, as every stored artifact is.
//!
//! One pass without a tree. It may say no to a text that is canonical: whoever asks has the tree to
//! fall back on.

use super::error::DEPTH_MAX;
use super::json_value::JsonValue;
use super::string_bytes;
use super::tokens::number_end;

/// True when the canonical form of the text is the text itself.
///
/// Keys that are not plain ASCII are left to the tree: they are ordered by UTF-16 code units.
pub(super) fn is_canonical(text: &str) -> bool {
    let walk = Walk {
        text,
        at: 0,
        open: Vec::new(),
    };
    walk.whole().is_some()
}

/// An array or object that is open; of an object the last key, which the next one must follow.
enum Open<'a> {
    Array,
    Object(&'a [u8]),
}

/// A place in the text. Every step is `None` where the text is not canonical, or might not be.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open<'a>>,
}

impl<'a> Walk<'a> {
    fn whole(mut self) -> Option<()> {
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

    /// Takes a value; true when it only opened one, whose first part comes next.
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

    /// Takes what follows a value; true when that closed another one.
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

    /// Takes a key and its colon.
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

    /// Takes the rest of a string, its closing quote included.
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

    /// Takes what follows a backslash, when a text may be written in no other way.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                self.rest("00")?;
                match (self.next()?, self.next()?) {
                    // These have a letter of their own.
                    (b'0', b'8' | b'9' | b'a' | b'c' | b'd') => None,
                    (b'0' | b'1', b'0'..=b'9' | b'a'..=b'f') => Some(()),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Takes a number whose first character was taken.
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
        (JsonValue::Number(value).canonical() == literal.as_bytes()).then_some(())
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
