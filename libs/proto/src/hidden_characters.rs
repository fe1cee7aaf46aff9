//! Characters that a reader does not see, or that change what a reader sees.

/// The first control, bidirectional, zero-width or otherwise invisible character of a text. Texts that people decide
/// by must have none: two of them could look alike and differ.
///
/// Source: Unicode 16, properties `Default_Ignorable_Code_Point`, `Bidi_Control`, `Cc`, `Zl`, `Zp`.
pub fn hidden_character(text: &str) -> Option<char> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    text.chars().find(|character| is_hidden(*character))
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_does_not_see_is_found() {
        for hidden in
            "\0\n\t\u{7f}\u{85}\u{ad}\u{200b}\u{200d}\u{202e}\u{2066}\u{feff}\u{e0061}".chars()
        {
            let text = format!("ab{hidden}c");
            assert_eq!(hidden_character(&text), Some(hidden), "{text:?}");
        }
    }

    #[test]
    fn what_a_reader_sees_passes() {
        for text in ["", "a b", "~", "größer — 東京, naïve № 5", "\u{a0}"] {
            assert_eq!(hidden_character(text), None, "{text:?}");
        }
    }
}
