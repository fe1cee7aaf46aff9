//! Text that does not compress, for tests of what is counted as it is stored.

/// Printable ASCII without characters that JSON escapes; each seed has its own.
pub fn incompressible_text(bytes: usize, seed: u64) -> String {
    let mut state = seed;
    let character = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // 35 is behind the quote, 57 characters on is before the backslash.
        char::from(35 + (state >> 33) as u8 % 57)
    };
    std::iter::repeat_with(character).take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incompressible_text_is_printable_without_escapes() {
        let text = incompressible_text(10_000, 7);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!text.contains(['"', '\\']));
        assert_ne!(text, incompressible_text(10_000, 8));
    }
}
