//! What waits to be appended, and who waits for it.

use std::sync::Arc;

use nixfleet_proto::Position;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::frame_target::FrameTarget;
use crate::frame::buffer::{EntryBatch, FrameLimits};
use crate::publish::error::AppendError;

/// The ways to the publishers of all partitions.
pub(crate) struct InputQueues {
    pub(super) partitions: Vec<PartitionQueue>,
    pub(super) limits: FrameLimits,
    pub(super) target: Arc<FrameTarget>,
}

/// The way to one partition's publisher.
pub(super) struct PartitionQueue {
    pub(super) sender: mpsc::Sender<Queued>,
    /// One permit per entry, from acceptance to answer.
    pub(super) room: Arc<Semaphore>,
}

pub(super) struct Queued {
    pub(super) subject: String,
    pub(super) run: EntryBatch,
    pub(super) waiter: Waiter,
}

/// Whoever waits for a run, to be told the position of its first entry.
pub(super) struct Waiter {
    pub(super) answer: oneshot::Sender<Result<Position, AppendError>>,
    pub(super) traceparent: Option<String>,
    pub(super) since: Instant,
    pub(super) room: OwnedSemaphorePermit,
}
