//! Frames of a turn between fold and publish.

use nixfleet_reducer::{BuiltFrame, FrameBuilder};
use tokio::time::Instant;
use tracing::Span;

use crate::telemetry::FrameSummary;

/// A turn: one fold and its frames.
#[derive(Clone)]
pub struct Turn {
    /// Span from the fold to the acknowledgement.
    pub span: Span,
    pub started: Instant,
}

/// The frames of a builder without their outcomes, each with a summary of these.
pub fn frames_of(builder: FrameBuilder) -> Vec<(BuiltFrame, FrameSummary)> {
    let frames = builder.build().into_iter();
    let summaries = frames.map(|mut built| {
        let outcomes = std::mem::take(&mut built.frame.outcomes);
        (built, FrameSummary::of(outcomes))
    });
    summaries.collect()
}

impl Turn {
    /// A turn without a recorded fold.
    pub fn unknown() -> Self {
        Self {
            span: Span::current(),
            started: Instant::now(),
        }
    }
}
