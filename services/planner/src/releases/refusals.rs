//! Refusals of releases, for people and metrics.

use crate::measure;

/// Says a refusal once, and again only when it changes.
#[derive(Debug, Default)]
pub struct Refusals {
    last: Option<String>,
}

impl Refusals {
    /// Says why something is refused.
    pub fn say(&mut self, what: &str, faults: &[String], text: String) {
        let said = format!("{what}: {text}");
        if self.last.as_ref() == Some(&said) {
            return;
        }
        measure::refused(faults);
        tracing::warn!(
            ?faults,
            reason = text,
            "{what} is refused, the last good one stays"
        );
        self.last = Some(said);
    }

    /// The next refusal is said, whatever it is.
    pub fn forget(&mut self) {
        self.last = None;
    }
}
