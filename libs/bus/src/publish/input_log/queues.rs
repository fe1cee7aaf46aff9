//! Queues from callers to the publishers, and the callers that wait for answers.

use std::sync::Arc;

use nixfleet_proto::Position;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::frame_fill_threshold::FrameFillThreshold;
use crate::frame::buffer::{EntryBatch, FrameLimits};
use crate::publish::error::AppendError;

pub(crate) struct InputQueues {
    pub(super) partitions: Vec<PartitionQueue>,
    pub(super) limits: FrameLimits,
    pub(super) target: Arc<FrameFillThreshold>,
}

pub(super) struct PartitionQueue {
    pub(super) sender: mpsc::Sender<Queued>,
    /// One permit per entry, held from acceptance to answer.
    pub(super) room: Arc<Semaphore>,
}

pub(super) struct Queued {
    pub(super) subject: String,
    pub(super) batch: EntryBatch,
    pub(super) waiter: Waiter,
}

/// The caller that waits for the position of a batch's first entry.
pub(super) struct Waiter {
    pub(super) answer: oneshot::Sender<Result<Position, AppendError>>,
    pub(super) traceparent: Option<String>,
    pub(super) since: Instant,
    pub(super) room: OwnedSemaphorePermit,
}
