//! Sending frames: a task of its own, so that a frame leaves as soon as the one before it is
//! acknowledged, whatever the owner's loop is busy with.

use nixfleet_bus::OutputLog;
use nixfleet_reducer::{Ended, Outbox, Publish};
use nixfleet_service::trace::traceparent_of;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::frames::Turn;
use crate::report::Told;

/// What became of a frame.
pub struct Published {
    /// What is to be said of it.
    pub told: Told,
    /// Its run.
    pub turn: Turn,
    /// Whether the ownership goes on.
    pub result: Result<(), Ended>,
}

/// The task.
pub struct Publisher {
    /// One message for each frame in the outbox; as many as that holds.
    frames: Option<UnboundedSender<(Turn, Told)>>,
    published: UnboundedReceiver<Published>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl Publisher {
    /// Sends what is put into the outbox.
    pub fn start(log: OutputLog, outbox: Outbox) -> Self {
        let (frames, waiting) = unbounded_channel();
        let (tell, published) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(send(log, outbox, waiting, tell));
        Self {
            frames: Some(frames),
            published,
            _task: task,
        }
    }

    /// A frame was put into the outbox.
    pub fn send(&self, turn: Turn, told: Told) {
        if let Some(frames) = &self.frames
            && frames.send((turn, told)).is_err()
        {
            tracing::debug!("the publisher ended; whoever waits for a frame is told");
        }
    }

    /// No frame comes any more.
    pub fn close(&mut self) {
        self.frames = None;
    }

    /// The fate of the next frame; `None` when the task ended.
    pub async fn published(&mut self) -> Option<Published> {
        self.published.recv().await
    }
}

async fn send(
    log: OutputLog,
    outbox: Outbox,
    mut waiting: UnboundedReceiver<(Turn, Told)>,
    tell: UnboundedSender<Published>,
) {
    while let Some((turn, told)) = waiting.recv().await {
        let Some(Publish { folded, expected }) = outbox.publish() else {
            return;
        };
        let traceparent = traceparent_of(&turn.span);
        let written = (folded.entries, folded.payload.clone());
        let sent = log.publish_written(written, expected, traceparent.as_deref());
        let result = outbox.published(sent.await);
        let is_over = result.is_err();
        let told = tell.send(Published { told, turn, result });
        if is_over || told.is_err() {
            return;
        }
    }
}
