//! Followers of the output logs: one task per partition, one queue to the leader.

use anyhow::Context as _;
use nixfleet_bus::{Bus, decode_output};
use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Batches in the queue: readers wait while the leader is behind.
const QUEUE_BATCHES: usize = 32;

/// Frames of one partition.
#[derive(Debug)]
pub struct FollowedFrames {
    pub partition: Partition,
    pub frames: Vec<OutputFrame>,
    /// Number of messages behind these.
    pub lag: u64,
    /// Why the message after these is no frame: the partition is followed no further.
    pub unreadable: Option<anyhow::Error>,
}

/// Followers of one leadership, which end with it.
pub struct OutputFollowers {
    queue: mpsc::Receiver<anyhow::Result<FollowedFrames>>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl OutputFollowers {
    /// Starts to follow every partition from its position.
    pub fn start(bus: &Bus, positions: &[(Partition, u64)], batch_messages: usize) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE_BATCHES);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (partition, next) in positions {
            let follower = Follower {
                bus: bus.clone(),
                partition: *partition,
                next: *next,
                batch_messages,
                queue: sender.clone(),
            };
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = follower.run() => {}
                }
            });
        }
        Self { queue, tasks, stop }
    }

    /// Waits for the next frames.
    ///
    /// # Errors
    /// When a log cannot be followed any more; the view must be loaded again.
    pub async fn next(&mut self) -> anyhow::Result<FollowedFrames> {
        let frames = self.queue.recv().await;
        frames.context("every follower has ended")?
    }

    /// Stops all followers and waits for them.
    pub async fn join(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Follower {
    bus: Bus,
    partition: Partition,
    next: u64,
    batch_messages: usize,
    queue: mpsc::Sender<anyhow::Result<FollowedFrames>>,
}

impl Follower {
    async fn run(self) {
        let stream = self.bus.names().output_stream(self.partition);
        let mut reader = self.bus.reader(&stream, self.next);
        loop {
            let frames = self.read(&mut reader).await;
            let is_over = !matches!(&frames, Ok(frames) if frames.unreadable.is_none());
            if self.queue.send(frames).await.is_err() || is_over {
                return;
            }
        }
    }

    async fn read(&self, reader: &mut nixfleet_bus::Reader) -> anyhow::Result<FollowedFrames> {
        let batch = reader.next_batch(self.batch_messages).await?;
        let mut followed = FollowedFrames {
            partition: self.partition,
            frames: Vec::with_capacity(batch.len()),
            lag: reader.pending(),
            unreadable: None,
        };
        for message in &batch {
            let frame = decode_output(message)
                .with_context(|| format!("reading output {} of {}", message.seq, reader.stream()));
            match frame {
                Ok(frame) => followed.frames.push(frame),
                Err(error) => {
                    followed.unreadable = Some(error);
                    break;
                }
            }
        }
        Ok(followed)
    }
}
