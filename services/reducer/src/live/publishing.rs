//! Sending frames: a task of its own, so that a frame leaves as soon as the one before it is
//! acknowledged, whatever the owner's loop is busy with. Another one encodes frames meanwhile.

use bytes::Bytes;
use nixfleet_bus::{OutputLog, PublishError};
use nixfleet_proto::Checkpoints;
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
    /// Checkpoints that it announced.
    pub announced: Option<Checkpoints>,
    /// Bytes that it takes in the log, or how the ownership ended.
    pub result: Result<u64, Ended>,
}

/// A frame of the outbox.
struct Frame<P> {
    turn: Turn,
    told: Told,
    payload: P,
}

/// A payload as it is stored, or why it is not.
type Encoded = Result<Bytes, PublishError>;

/// The tasks.
pub struct Publisher {
    /// One message for each frame in the outbox, in its order; as many as that holds.
    frames: Option<UnboundedSender<Frame<Bytes>>>,
    published: UnboundedReceiver<Published>,
    /// End with this.
    _tasks: JoinSet<()>,
}

impl Publisher {
    /// Sends what is put into the outbox.
    pub fn start(log: OutputLog, outbox: Outbox) -> Self {
        let (frames, written) = unbounded_channel();
        let (ready, waiting) = unbounded_channel();
        let (tell, published) = unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(encode(written, ready));
        tasks.spawn(send(log, outbox, waiting, tell));
        Self {
            frames: Some(frames),
            published,
            _tasks: tasks,
        }
    }

    /// A frame with this JSON was put into the outbox.
    pub fn send(&self, turn: Turn, told: Told, payload: Bytes) {
        let frame = Frame {
            turn,
            told,
            payload,
        };
        if let Some(frames) = &self.frames
            && frames.send(frame).is_err()
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

async fn encode(
    mut written: UnboundedReceiver<Frame<Bytes>>,
    ready: UnboundedSender<Frame<Encoded>>,
) {
    while let Some(frame) = written.recv().await {
        let frame = Frame {
            turn: frame.turn,
            told: frame.told,
            payload: OutputLog::encode(frame.payload).await,
        };
        if ready.send(frame).is_err() {
            return;
        }
    }
}

async fn send(
    log: OutputLog,
    outbox: Outbox,
    mut waiting: UnboundedReceiver<Frame<Encoded>>,
    tell: UnboundedSender<Published>,
) {
    while let Some(frame) = waiting.recv().await {
        let Some(Publish { folded, expected }) = outbox.publish() else {
            return;
        };
        let Frame { turn, told, .. } = frame;
        let traceparent = traceparent_of(&turn.span);
        let sent = match frame.payload {
            Ok(stored) => {
                let encoded = (folded.entries, stored);
                log.publish_encoded(encoded, expected, traceparent.as_deref())
                    .await
            }
            Err(error) => Err(error),
        };
        let bytes = sent.as_ref().map_or(0, |stored| stored.bytes);
        let result = outbox.published(sent.map(|stored| stored.seq));
        let result = result.map(|()| bytes);
        let is_over = result.is_err();
        let told = tell.send(Published {
            told,
            turn,
            announced: folded.frame.checkpoints.clone(),
            result,
        });
        if is_over || told.is_err() {
            return;
        }
    }
}
