//! Frames between the fold and the log: being written beside the next fold, and in flight.

use futures::future::BoxFuture;
use nixfleet_bus::PublishError;
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

/// What became of a published frame.
pub struct Published {
    /// What is to be said of it.
    pub told: Told,
    /// Its run.
    pub turn: Turn,
    /// Its sequence.
    pub result: Result<u64, PublishError>,
}

/// Waits for the frame in flight, or for ever when there is none.
pub async fn maybe(publishing: &mut Option<BoxFuture<'static, Published>>) -> Published {
    match publishing {
        Some(publishing) => publishing.await,
        None => std::future::pending().await,
    }
}

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
    /// Of a frame that was published again.
    pub fn unknown() -> Self {
        Self {
            span: Span::current(),
            started: Instant::now(),
        }
    }
}
