//! Text output: on standard output, or on standard error when standard output carries JSON.

use std::io::IsTerminal as _;
use std::time::Instant;

/// Prints lines, where wanted with the time since the start.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
    start: Instant,
}

impl Printer {
    /// A printer; with `json` it prints to standard error.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            start: Instant::now(),
        }
    }

    /// Prints text and ends the line.
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

    /// True when progress bars are possible.
    pub fn can_draw_bars(&self) -> bool {
        !self.json && std::io::stdout().is_terminal()
    }

    /// Prints a line with the seconds since the start.
    pub fn timed_line(&self, text: &str) {
        self.line(&format!(
            "{:>7.1} s  {text}",
            self.start.elapsed().as_secs_f64()
        ));
    }
}
