//! Where words for people go: standard output, or standard error when JSON owns the former.

use std::time::Instant;

/// Prints lines with the time since the start.
#[derive(Debug, Clone, Copy)]
pub struct Say {
    json: bool,
    start: Instant,
}

impl Say {
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

    /// Something that happens now.
    pub fn now(&self, text: &str) {
        self.line(&format!(
            "{:>7.1} s  {text}",
            self.start.elapsed().as_secs_f64()
        ));
    }
}
