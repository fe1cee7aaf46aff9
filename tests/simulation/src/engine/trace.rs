//! The trace of a run: every line is hashed, and printed or kept on request.

use std::fmt::{self, Write as _};

use super::virtual_time::Time;

/// Where lines go in addition to the hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Kept, for tests.
    Kept,
    /// Printed to standard output as they come.
    Printed,
}

/// The trace of a run. Two runs of a seed with different hashes mean that something depends on more than
/// the seed.
#[derive(Debug, Default)]
pub struct Trace {
    hash: Fnv,
    lines: u64,
    output: Output,
    kept: Vec<String>,
}

impl Trace {
    /// An empty trace.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            ..Self::default()
        }
    }

    /// Adds a line.
    pub fn line(&mut self, at: Time, text: fmt::Arguments<'_>) {
        self.lines += 1;
        writeln!(self.hash, "{} {text}", at.micros()).expect("hashing cannot fail");
        match self.output {
            Output::Nowhere => {}
            Output::Kept => self.kept.push(format!("{at} {text}")),
            Output::Printed => println!("{at} {text}"),
        }
    }

    /// FNV-1a 64 of all lines.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The lines, when they were kept.
    pub fn kept(&self) -> &[String] {
        &self.kept
    }
}

#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(lines: &[&str]) -> u64 {
        let mut trace = Trace::default();
        for line in lines {
            trace.line(Time::ZERO, format_args!("{line}"));
        }
        trace.hash()
    }

    #[test]
    fn the_hash_depends_on_every_line_and_its_place() {
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_ne!(hash(&["a", "b"]), hash(&["ab"]));
        assert_ne!(hash(&["a"]), hash(&["a", ""]));
    }
}
