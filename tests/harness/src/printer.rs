//! Where words for people go: standard output, or standard error when JSON owns the former.

use std::io::IsTerminal as _;
use std::time::Instant;

/// Prints lines, where wanted with the time since the start.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
    start: Instant,
}

impl Printer {
    /// With JSON wanted, people read standard error.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            start: Instant::now(),
        }
    }

    /// One line, or several.
    pub fn line(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    /// A heading.
    pub fn heading(&self, text: &str) {
        self.line(&format!("\n== {text}"));
    }

    /// True when bars would not disturb anything.
    pub fn can_draw_bars(&self) -> bool {
        !self.json && std::io::stdout().is_terminal()
    }

    /// Something that happens now.
    pub fn timed_line(&self, text: &str) {
        self.line(&format!(
            "{:>7.1} s  {text}",
            self.start.elapsed().as_secs_f64()
        ));
    }
}
