//! Escapes in JSON strings.

/// A surrogate without its other half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LoneSurrogate;

/// The characters of a string without its quotes, decoded one at a time. The escapes must be valid JSON; ends
/// after a lone surrogate.
pub(super) struct Characters<'t>(&'t str);

impl<'t> Characters<'t> {
    pub(super) fn new(raw: &'t str) -> Self {
        Self(raw)
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.character()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.code_units(),
            same => same,
        })
    }

    fn code_units(&mut self) -> Option<char> {
        let first = self.code_unit()?;
        if !matches!(first, 0xd800..=0xdbff) {
            return char::from_u32(first.into());
        }
        self.0 = self.0.strip_prefix("\\u")?;
        let both = [first, self.code_unit()?];
        char::decode_utf16(both).next()?.ok()
    }

    fn code_unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.0.split_at_checked(4)?;
        self.0 = rest;
        u16::from_str_radix(digits, 16).ok()
    }

    fn character(&mut self) -> Option<char> {
        let mut rest = self.0.chars();
        let next = rest.next();
        self.0 = rest.as_str();
        next
    }
}

impl Iterator for Characters<'_> {
    type Item = Result<char, LoneSurrogate>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.character()? {
            '\\' => Some(self.escaped().ok_or_else(|| {
                self.0 = "";
                LoneSurrogate
            })),
            plain => Some(Ok(plain)),
        }
    }
}

/// Writes a string without its quotes in canonical form.
///
/// Source: RFC 8785, section 3.2.2.2.
pub(super) fn write_canonical(raw: &str, sink: &mut impl FnMut(&[u8])) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        sink(&rest.as_bytes()[..at]);
        let mut characters = Characters::new(&rest[at..]);
        if let Some(Ok(character)) = characters.next() {
            write_character(character, sink);
        }
        rest = characters.0;
    }
    sink(rest.as_bytes());
}

fn write_character(character: char, sink: &mut impl FnMut(&[u8])) {
    match character {
        '"' => sink(b"\\\""),
        '\\' => sink(b"\\\\"),
        '\u{8}' => sink(b"\\b"),
        '\u{c}' => sink(b"\\f"),
        '\n' => sink(b"\\n"),
        '\r' => sink(b"\\r"),
        '\t' => sink(b"\\t"),
        control @ '\0'..='\u{1f}' => sink(format!("\\u{:04x}", u32::from(control)).as_bytes()),
        other => sink(other.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}
