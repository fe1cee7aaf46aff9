//! Log and metrics of refused releases of the source.

use crate::telemetry;

/// Logs a refusal once, and again only when it changes.
#[derive(Debug, Default)]
pub struct RefusalLog {
    last: Option<String>,
}

impl RefusalLog {
    /// Logs why a release is refused.
    pub fn log(&mut self, what: &str, faults: &[String], text: String) {
        let refusal = format!("{what}: {text}");
        if self.last.as_ref() == Some(&refusal) {
            return;
        }
        telemetry::count_refusal(faults);
        tracing::warn!(
            ?faults,
            reason = text,
            "{what} is refused; the last accepted one stays"
        );
        self.last = Some(refusal);
    }

    /// Logs the next refusal in any case.
    pub fn reset(&mut self) {
        self.last = None;
    }
}
