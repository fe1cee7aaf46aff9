//! Outputs as a page shows them, with placeholders.

use anyhow::{Result, ensure};
use chrono::NaiveDateTime;

/// Stands for a word, a part of one or a time; on a line of its own for any number of lines.
const PLACEHOLDER: &str = "…";

/// Compares words, however many spaces are between them.
pub fn compare(expected: &str, actual: &str) -> Result<()> {
    ensure!(
        lines_match(&words(expected), &words(actual)),
        "the page shows:\n{expected}\nthe command prints:\n{actual}"
    );
    Ok(())
}

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(words_of_line).collect()
}

/// The words of a line; a time is the placeholder.
fn words_of_line(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let last = words.last().copied().unwrap_or_default();
        let time = format!("{last} {}", word.trim_end_matches(','));
        if NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M:%S").is_ok() {
            words.pop();
            words.push(PLACEHOLDER);
        } else {
            words.push(word);
        }
    }
    words
}

fn lines_match(expected: &[Vec<&str>], actual: &[Vec<&str>]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((line, rest)) if *line == [PLACEHOLDER] => {
            (0..=actual.len()).any(|left_out| lines_match(rest, &actual[left_out..]))
        }
        Some((line, rest)) => actual
            .split_first()
            .is_some_and(|(first, others)| words_match(line, first) && lines_match(rest, others)),
    }
}

fn words_match(expected: &[&str], actual: &[&str]) -> bool {
    let same = |(expected, actual): (&&str, &&str)| match expected.split_once(PLACEHOLDER) {
        None => expected == actual,
        Some((start, end)) => actual
            .strip_prefix(start)
            .is_some_and(|rest| rest.len() > end.len() && rest.ends_with(end)),
    };
    expected.len() == actual.len() && expected.iter().zip(actual).all(same)
}

#[test]
fn placeholders_stand_for_words_times_and_lines() {
    for (expected, actual, matches) in [
        ("a  b", "a b", true),
        ("a", "a b", false),
        ("a …", "a", false),
        ("a …", "a b", true),
        ("a …", "a b c", false),
        ("at … b", "at 2026-05-01 12:00:00 b", true),
        ("[entry …]", "[entry 18.0]", true),
        ("[entry …]", "[entry ]", false),
        ("a\n…\nz", "a\nz", true),
        ("a\n…\nz", "a\nb\nc\nz", true),
        ("a\n…\nz", "a\nb", false),
        ("a\n\nb", "a\nb", false),
        ("", "a", false),
    ] {
        assert_eq!(
            compare(expected, actual).is_ok(),
            matches,
            "{expected:?} {actual:?}"
        );
    }
}
