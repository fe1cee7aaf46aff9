//! Frames between the fold and the log.

use nixfleet_reducer::{Folded, Run};
use tokio::time::Instant;
use tracing::Span;

use crate::report::Told;

/// A run on its way through fold and log.
#[derive(Clone)]
pub struct Turn {
    /// From the fold to the acknowledgement.
    pub span: Span,
    /// When its fold began.
    pub started: Instant,
}

/// The frames of a run without their outcomes, and what is to be said of these.
pub fn frames_of(run: Run) -> Vec<(Folded, Told)> {
    let frames = run.write().into_iter();
    let told = frames.map(|mut folded| {
        let outcomes = std::mem::take(&mut folded.frame.outcomes);
        (folded, Told::of(outcomes))
    });
    told.collect()
}

impl Turn {
    /// Of a run whose beginning was not noted.
    pub fn unknown() -> Self {
        Self {
            span: Span::current(),
            started: Instant::now(),
        }
    }
}
