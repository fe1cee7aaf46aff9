//! The committed hashes of encodings that others rely on: `hashes.txt`, one line per sample.
//!
//! The crate that writes an encoding has a test that gives [`check`] the bytes of fixed samples. This
//! crate must never know what they hold.
//!
//! Source: docs/stability.md.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use sha2::{Digest as _, Sha256};

/// Encoding, label, sample and SHA-256, separated by spaces.
const HASHES: &str = include_str!("../hashes.txt");

/// Compares the bytes of all samples of an encoding with the committed hashes.
///
/// The label is the version that readers find with the data. Names have no spaces.
///
/// # Panics
/// When a hash differs, or a sample or a line is missing; the message says what to do.
pub fn check<S: AsRef<str>, B: AsRef<[u8]>>(
    encoding: &str,
    label: impl Display,
    samples: impl IntoIterator<Item = (S, B)>,
) {
    let lines = samples.into_iter().map(|(name, bytes)| {
        let hash = hex::encode(Sha256::digest(bytes));
        format!("{encoding} {label} {} {hash}", name.as_ref())
    });
    let found: BTreeSet<String> = lines.collect();
    let begin = format!("{encoding} ");
    let listed = HASHES.lines().filter(|line| line.starts_with(&begin));
    let listed: BTreeSet<String> = listed.map(str::to_owned).collect();
    if listed != found {
        panic!("{}", explanation(encoding, &listed, &found));
    }
}

/// Differences, and what to do about them.
fn explanation(encoding: &str, listed: &BTreeSet<String>, found: &BTreeSet<String>) -> String {
    let sample = |line: &str| line.rsplit_once(' ').map(|(sample, _)| sample.to_owned());
    let samples = |lines: &BTreeSet<String>| -> BTreeSet<_> {
        lines.iter().filter_map(|line| sample(line)).collect()
    };
    let (known, written) = (samples(listed), samples(found));
    let is_in =
        |samples: &BTreeSet<_>, line: &str| sample(line).is_some_and(|s| samples.contains(&s));
    let other = found.difference(listed);
    let (changed, new): (Vec<_>, Vec<_>) = other.partition(|line| is_in(&known, line));
    let gone: Vec<_> = listed
        .difference(found)
        .filter(|line| !is_in(&written, line))
        .collect();
    let mut text = format!("encoding `{encoding}` differs from tests/encodings/hashes.txt.\n");
    for (lines, advice) in [
        (
            changed,
            "Bytes changed under their label, and bytes of before have readers. Put them back, or give \
             the encoding another label and teach its readers both (docs/stability.md names label and \
             readers):",
        ),
        (new, "Add a line for each new sample:"),
        (
            gone,
            "No test gives these samples. Remove the lines when no reader needs their label:",
        ),
    ] {
        if !lines.is_empty() {
            _ = writeln!(text, "{advice}");
        }
        lines.iter().for_each(|line| _ = writeln!(text, "{line}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(found: &[&str]) -> String {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let listed = lines(&["frame 1 input aa", "frame 1 output bb"]);
        explanation("frame", &listed, &lines(found))
    }

    #[test]
    fn changed_bytes_ask_for_another_label() {
        let text = explained(&["frame 1 input aa", "frame 1 output cc"]);
        assert!(text.contains("another label"), "{text}");
        assert!(
            !text.contains("new sample") && !text.contains("Remove"),
            "{text}"
        );
    }

    #[test]
    fn a_new_sample_and_a_new_label_ask_for_lines() {
        for line in ["frame 1 barrier cc", "frame 2 output cc"] {
            let text = explained(&["frame 1 input aa", line]);
            assert!(
                text.contains("new sample") && text.contains("Remove"),
                "{text}"
            );
            assert!(!text.contains("another label"), "{text}");
        }
    }

    #[test]
    fn a_sample_is_listed_once() {
        let samples: Vec<_> = HASHES
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect();
        let mut unique = samples.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), samples.len());
    }

    #[test]
    #[should_panic(expected = "differs from tests/encodings/hashes.txt")]
    fn an_encoding_without_lines_is_refused() {
        check("unknown", 1, [("sample", "bytes")]);
    }
}
