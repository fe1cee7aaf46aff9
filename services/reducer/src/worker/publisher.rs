//! Publishes frames in a task of its own: a frame is sent as soon as the one before is
//! acknowledged, while the owner's loop is busy. A second task compresses frames meanwhile.

use bytes::Bytes;
use nixfleet_bus::{OutputLog, PublishError};
use nixfleet_proto::Checkpoints;
use nixfleet_reducer::{FencedFrame, OwnershipEnd, PublishQueue};
use nixfleet_service::trace_context::traceparent_of;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::turn_frames::Turn;
use crate::telemetry::FrameSummary;

/// Result of publishing a frame.
pub struct Published {
    pub summary: FrameSummary,
    pub turn: Turn,
    pub announced: Option<Checkpoints>,
    /// Bytes of the frame in the log, or the end of the ownership.
    pub result: Result<u64, OwnershipEnd>,
}

/// A frame of the queue.
struct Frame<P> {
    turn: Turn,
    summary: FrameSummary,
    payload: P,
}

/// Stored form of a payload, or why there is none.
type Encoded = Result<Bytes, PublishError>;

/// Handle of the publishing tasks.
pub struct Publisher {
    /// One message per frame of the publish queue, in order; bounded by that queue.
    frames: Option<UnboundedSender<Frame<Bytes>>>,
    published: UnboundedReceiver<Published>,
    /// Aborted when the publisher is dropped.
    _tasks: JoinSet<()>,
}

impl Publisher {
    /// Starts the tasks for a publish queue.
    pub fn start(log: OutputLog, queue: PublishQueue) -> Self {
        let (frames, written) = unbounded_channel();
        let (ready, waiting) = unbounded_channel();
        let (results, published) = unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(encode(written, ready));
        tasks.spawn(send(log, queue, waiting, results));
        Self {
            frames: Some(frames),
            published,
            _tasks: tasks,
        }
    }

    pub fn send(&self, turn: Turn, summary: FrameSummary, payload: Bytes) {
        let frame = Frame {
            turn,
            summary,
            payload,
        };
        if let Some(frames) = &self.frames
            && frames.send(frame).is_err()
        {
            tracing::debug!("the publisher ended before it sent this frame");
        }
    }

    /// Announces that no frame follows.
    pub fn close(&mut self) {
        self.frames = None;
    }

    /// Result of the next frame; `None` when the tasks ended.
    pub async fn published(&mut self) -> Option<Published> {
        self.published.recv().await
    }
}

async fn encode(
    mut written: UnboundedReceiver<Frame<Bytes>>,
    ready: UnboundedSender<Frame<Encoded>>,
) {
    while let Some(frame) = written.recv().await {
        let frame = Frame {
            turn: frame.turn,
            summary: frame.summary,
            payload: OutputLog::encode(frame.payload).await,
        };
        if ready.send(frame).is_err() {
            return;
        }
    }
}

async fn send(
    log: OutputLog,
    queue: PublishQueue,
    mut waiting: UnboundedReceiver<Frame<Encoded>>,
    results: UnboundedSender<Published>,
) {
    while let Some(frame) = waiting.recv().await {
        let Some(FencedFrame { built, expected }) = queue.publish() else {
            return;
        };
        let Frame { turn, summary, .. } = frame;
        let traceparent = traceparent_of(&turn.span);
        let stored = match frame.payload {
            Ok(stored) => {
                let encoded = (built.entries, stored);
                log.publish_encoded(encoded, expected, traceparent.as_deref())
                    .await
            }
            Err(error) => Err(error),
        };
        let bytes = stored.as_ref().map_or(0, |stored| stored.bytes);
        let result = queue.published(stored.map(|stored| stored.seq));
        let result = result.map(|()| bytes);
        let is_over = result.is_err();
        let sent = results.send(Published {
            summary,
            turn,
            announced: built.frame.checkpoints.clone(),
            result,
        });
        if is_over || sent.is_err() {
            return;
        }
    }
}
