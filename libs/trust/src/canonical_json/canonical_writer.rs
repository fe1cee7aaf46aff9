//! Writes the canonical form of a text piece by piece.

use super::member_order::MemberOrder;
use super::string_escapes;
use super::tokens::{end_of_whitespace, number_end, string_end};

/// Size of the pieces: hashes are slow on single tokens.
const PIECE_BYTES: usize = 8 * 1024;

/// Writes the canonical form of a checked text.
pub(super) fn write(text: &str, order: &MemberOrder, sink: &mut dyn FnMut(&[u8])) {
    let mut writer = Writer {
        text,
        order,
        piece: Vec::with_capacity(PIECE_BYTES),
        sink,
    };
    writer.value(0);
    (writer.sink)(&writer.piece);
}

/// The canonical text of a finite number.
///
/// Source: RFC 8785, section 3.2.2.3.
pub(super) fn canonical_number(value: f64) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(&value)
        .expect("the number is finite, writing to memory cannot fail")
}

/// Writer over a text whose grammar, depth, numbers and keys are checked. Each step takes an offset and returns
/// the one behind what it wrote; nesting calls it at most `DEPTH_MAX` deep.
struct Writer<'w> {
    text: &'w str,
    order: &'w MemberOrder,
    piece: Vec<u8>,
    sink: &'w mut dyn FnMut(&[u8]),
}

impl Writer<'_> {
    fn value(&mut self, at: usize) -> usize {
        let start = self.skip(at);
        match self.byte(start) {
            b'{' => self.object(start),
            b'[' => self.list(start),
            b'"' => self.string(start),
            b'-' | b'0'..=b'9' => self.number(start),
            _ => self.literal(start),
        }
    }

    fn object(&mut self, start: usize) -> usize {
        self.push(b"{");
        let mut next = self.skip(start + 1);
        match self.order.keys_of(start) {
            Some(keys) => {
                for (index, key) in keys.iter().enumerate() {
                    self.push(if index == 0 { b"" } else { b"," });
                    next = next.max(self.member(*key as usize));
                }
            }
            None => {
                while self.byte(next) != b'}' {
                    next = self.comma(next);
                    next = self.member(next);
                }
            }
        }
        self.push(b"}");
        self.skip(next) + 1
    }

    fn list(&mut self, start: usize) -> usize {
        self.push(b"[");
        let mut next = self.skip(start + 1);
        while self.byte(next) != b']' {
            next = self.comma(next);
            next = self.value(next);
            next = self.skip(next);
        }
        self.push(b"]");
        next + 1
    }

    /// Writes a key and its value; returns the offset of the comma or brace behind them.
    fn member(&mut self, key: usize) -> usize {
        let colon = self.string(key);
        self.push(b":");
        let end = self.value(self.skip(colon) + 1);
        self.skip(end)
    }

    /// Writes the comma when there is one.
    fn comma(&mut self, at: usize) -> usize {
        if self.byte(at) != b',' {
            return at;
        }
        self.push(b",");
        self.skip(at + 1)
    }

    fn string(&mut self, start: usize) -> usize {
        let end = string_end(self.text.as_bytes(), start);
        self.push(b"\"");
        let raw = &self.text[start + 1..end - 1];
        string_escapes::write_canonical(raw, &mut |piece| self.push(piece));
        self.push(b"\"");
        end
    }

    fn number(&mut self, start: usize) -> usize {
        let end = number_end(self.text.as_bytes(), start);
        let literal = &self.text[start..end];
        if literal.len() <= 15 && literal.bytes().all(|byte| byte.is_ascii_digit()) {
            self.push(literal.as_bytes());
        } else {
            let value = literal.parse().expect("a checked number is finite");
            self.push(&canonical_number(value));
        }
        end
    }

    fn literal(&mut self, start: usize) -> usize {
        let bytes = &self.text.as_bytes()[start..];
        let length = bytes.iter().take_while(|byte| byte.is_ascii_lowercase());
        let end = start + length.count();
        self.push(&self.text.as_bytes()[start..end]);
        end
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.piece.len() + bytes.len() > PIECE_BYTES {
            (self.sink)(&self.piece);
            self.piece.clear();
        }
        if bytes.len() > PIECE_BYTES {
            (self.sink)(bytes);
        } else {
            self.piece.extend_from_slice(bytes);
        }
    }

    fn skip(&self, at: usize) -> usize {
        end_of_whitespace(self.text.as_bytes(), at)
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes()[at]
    }
}
