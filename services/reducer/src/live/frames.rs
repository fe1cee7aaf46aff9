//! Frames between the fold and the log: written beside the next fold.

use nixfleet_reducer::{Folded, Run};
use tokio::task::{JoinHandle, spawn_blocking};
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

/// A run on its way into frames.
pub struct Writing {
    frames: JoinHandle<Frames>,
    /// Of the run.
    pub turn: Turn,
}

/// Frames without their outcomes, and what is to be said of these.
pub type Frames = Vec<(Folded, Told)>;

/// Waits for the frames that are being written, or for ever when none are.
pub async fn written(writing: &mut Option<Writing>) -> Frames {
    let Some(writing) = writing else {
        return std::future::pending().await;
    };
    let frames = (&mut writing.frames).await;
    frames
        .map_err(tokio::task::JoinError::into_panic)
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Writes a run, and lets go of its outcomes where they were written: whoever frees them later has
/// to fetch them once more.
pub fn frames_of(run: Run) -> Frames {
    let frames = run.write().into_iter();
    let told = frames.map(|mut folded| {
        let outcomes = std::mem::take(&mut folded.frame.outcomes);
        (folded, Told::of(outcomes))
    });
    told.collect()
}

impl Writing {
    /// Begins to write on another thread.
    pub fn start(run: Run, turn: Turn) -> Self {
        Self {
            frames: spawn_blocking(|| frames_of(run)),
            turn,
        }
    }
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
