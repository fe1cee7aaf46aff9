//! Where words for people go: standard output, or standard error when JSON owns the former.

/// Prints lines.
#[derive(Debug, Clone, Copy)]
pub struct Say {
    json: bool,
}

impl Say {
    /// With JSON wanted, people read standard error.
    pub fn new(json: bool) -> Self {
        Self { json }
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
    pub fn title(&self, text: &str) {
        self.line(&format!("\n== {text}"));
    }

    /// True when bars would not disturb anything.
    pub fn may_draw(&self) -> bool {
        use std::io::IsTerminal as _;
        !self.json && std::io::stdout().is_terminal()
    }
}
