//! Words and signs of a source file, without comments, texts and tests.

/// Words, `::`, and every other sign on its own.
pub(super) fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest));
        let length = match skipped {
            Some(length) => length,
            None if first.is_whitespace() => first.len_utf8(),
            None => {
                let length = match word(rest) {
                    0 if rest.starts_with("::") => 2,
                    0 => first.len_utf8(),
                    length => length,
                };
                found.push(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    without_tests(&found)
}

/// True for names and keywords.
pub(super) fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Length of the word at the beginning, numbers included.
fn word(text: &str) -> usize {
    let is_end = |c: char| !c.is_alphanumeric() && c != '_';
    text.find(is_end).unwrap_or(text.len())
}

/// Length of the comment at the beginning.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut depth = 0;
    let mut at = 0;
    while text.starts_with("/*") {
        let rest = &text[at..];
        match (rest.get(..2), rest.chars().next()) {
            (Some("/*"), _) => (depth, at) = (depth + 1, at + 2),
            (Some("*/"), _) => (depth, at) = (depth - 1, at + 2),
            (_, Some(c)) => at += c.len_utf8(),
            (_, None) => return Some(at),
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Length of the text, the character or the lifetime at the beginning.
fn literal(text: &str) -> Option<usize> {
    let raw = text.trim_start_matches(['b', 'c']).strip_prefix('r');
    if let Some(raw) = raw.filter(|_| text.find('r').is_some_and(|at| at <= 1)) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(inside) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = text.len() - inside.len();
            let length = inside.find(&end).map(|at| from + at + end.len());
            return Some(length.unwrap_or(text.len()));
        }
    }
    if let Some(inside) = text.strip_prefix('"') {
        return Some(1 + closed(inside, '"'));
    }
    let inside = text.strip_prefix('\'')?;
    let mut characters = inside.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => Some(1 + closed(inside, '\'')),
        (Some(_), Some('\'')) => Some(1 + closed(inside, '\'')),
        _lifetime => Some(1 + word(inside)),
    }
}

/// Bytes up to the quote that closes, included.
fn closed(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return at + quote.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Index behind the bracket that closes the one at `open`.
pub(super) fn behind(tokens: &[&str], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Leaves out every item that is built for tests only.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&TEST) {
            at = item_end(tokens, at + TEST.len());
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Index behind an item: its semicolon, or its braces.
fn item_end(tokens: &[&str], from: usize) -> usize {
    let mut at = from;
    while let Some(token) = tokens.get(at) {
        match *token {
            ";" => return at + 1,
            "{" => return behind(tokens, at),
            "(" | "[" => at = behind(tokens, at),
            _ => at += 1,
        }
    }
    at
}
