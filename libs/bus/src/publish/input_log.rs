//! Appending to the input logs: one publisher per partition with one message in flight.

mod frame_fill_threshold;
mod partition_publisher;
mod queues;

use std::sync::Arc;

use chrono::TimeDelta;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, Position, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::Bus;
use crate::frame::buffer::{EntryBatch, FrameLimits};
use crate::publish::error::AppendError;

pub(crate) use queues::InputQueues;

use frame_fill_threshold::FrameFillThreshold;
use partition_publisher::Publisher;
use queues::{PartitionQueue, Queued, Waiter};

/// Age of a stamp that waiting for space makes; older entries are stamped again.
const RESTAMP_AFTER: TimeDelta = TimeDelta::seconds(1);

type Answer = oneshot::Receiver<Result<Position, AppendError>>;

/// Appends entries; cheap to clone, all clones share the publishers of the process.
#[derive(Clone)]
pub struct InputPublisher {
    bus: Bus,
    queues: Arc<InputQueues>,
}

/// Starts one publisher per partition on the task tracker of the bus.
pub(crate) fn start(bus: &Bus) -> InputQueues {
    let config = bus.config();
    let limits = FrameLimits {
        entries: config.frame_max_entries,
        bytes: config.frame_max_bytes,
    };
    let capacity = config.input_queue_entries;
    let target = Arc::<FrameFillThreshold>::default();
    let partitions = Partition::all(config.partitions)
        .map(|partition| {
            let (sender, queued) = mpsc::channel(capacity);
            let publisher = Publisher::new(bus, partition, queued, (limits, Arc::clone(&target)));
            bus.tracker().spawn(publisher.run(bus.closing().clone()));
            PartitionQueue {
                sender,
                room: Arc::new(Semaphore::new(capacity)),
            }
        })
        .collect();
    InputQueues {
        partitions,
        limits,
        target,
    }
}

impl InputPublisher {
    pub(crate) fn new(bus: Bus, queues: Arc<InputQueues>) -> Self {
        Self { bus, queues }
    }

    /// The time with which entries are stamped.
    pub fn now(&self) -> Timestamp {
        self.bus.now()
    }

    /// Sets the number of clients that append and wait for answers, over all partitions. With more clients
    /// the publishers build larger frames under load.
    pub fn expect_clients(&self, clients: usize) {
        self.queues.target.expect(clients);
    }

    /// Queues one entry and returns its position once it is durable. Only the serialised entry is kept.
    ///
    /// # Errors
    /// [`AppendError`]; a full queue is `Unavailable` at once.
    pub fn append(
        &self,
        partition: Partition,
        entry: Entry,
    ) -> impl Future<Output = Result<Position, AppendError>> + use<> {
        let queued = self.try_enqueue(partition, &entry);
        async { received(queued?).await }
    }

    fn try_enqueue(&self, partition: Partition, entry: &Entry) -> Result<Answer, AppendError> {
        let queue = self.queue_of(partition)?;
        let batch = self.write(entry)?;
        let room = room_now(queue, &batch)?;
        self.enqueue(queue, (partition, entry), batch, room)
    }

    /// Appends entries of one subject so that none is stored before its predecessors: in one message where
    /// they fit, otherwise each message after the acknowledgement of the one before. A full queue is
    /// `Unavailable` at once.
    pub async fn append_in_order(&self, partition: Partition, entries: &[Entry]) -> Appended {
        let mut appended = Appended::default();
        while let Some(rest) = entries.get(appended.positions.len()..) {
            let stored = match self.longest_batch(rest) {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => self.append_together(partition, &rest[0], batch).await,
                Err(error) => Err(error),
            };
            match stored {
                Ok(positions) => appended.positions.extend(positions),
                Err(error) => {
                    appended.stopped = Some(error);
                    break;
                }
            }
        }
        appended
    }

    /// The longest prefix of the entries that fits into one frame.
    fn longest_batch(&self, entries: &[Entry]) -> Result<EntryBatch, AppendError> {
        let mut batch = EntryBatch::default();
        for entry in entries {
            let single = match self.write(entry) {
                Ok(single) => single,
                // The entries before it are sent first.
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(error),
            };
            if !batch.is_empty() && !self.queues.limits.hold(&batch, &single) {
                break;
            }
            batch.append(&single);
        }
        Ok(batch)
    }

    async fn append_together(
        &self,
        partition: Partition,
        first: &Entry,
        batch: EntryBatch,
    ) -> Result<impl Iterator<Item = Position> + use<>, AppendError> {
        let queue = self.queue_of(partition)?;
        let (entries, room) = (batch.len() as u32, room_now(queue, &batch)?);
        let answer = self.enqueue(queue, (partition, first), batch, room)?;
        let first = received(answer).await?;
        Ok((0..entries).map(move |offset| Position {
            seq: first.seq,
            index: first.index + offset,
        }))
    }

    /// Appends entries in order and returns their positions once all are durable. Waits for space in the
    /// queue; an entry that is not new any more when it is queued is stamped again.
    ///
    /// # Errors
    /// The first [`AppendError`]; the other entries may be stored.
    pub async fn append_all(
        &self,
        partition: Partition,
        mut entries: Vec<Entry>,
    ) -> Result<Vec<Position>, AppendError> {
        let queue = self.queue_of(partition)?;
        let timeout = self.bus.config().append_deadline();
        let mut answers = Vec::with_capacity(entries.len());
        for entry in &mut entries {
            let room = tokio::time::timeout(timeout, queue.room.clone().acquire_owned())
                .await
                .map_err(|_| {
                    AppendError::Unavailable("the queue stayed full until the deadline".to_owned())
                })?
                .map_err(|_| closed())?;
            let now = self.bus.now();
            if now - entry.received_at > RESTAMP_AFTER {
                entry.received_at = now;
            }
            let batch = self.write(entry)?;
            answers.push(self.enqueue(queue, (partition, entry), batch, room)?);
        }
        let mut positions = Vec::with_capacity(answers.len());
        for answer in answers {
            positions.push(received(answer).await?);
        }
        Ok(positions)
    }

    fn queue_of(&self, partition: Partition) -> Result<&PartitionQueue, AppendError> {
        self.queues
            .partitions
            .get(usize::from(partition.number()))
            .ok_or_else(|| AppendError::Unavailable(format!("there is no partition {partition}")))
    }

    fn write(&self, entry: &Entry) -> Result<EntryBatch, AppendError> {
        let batch = EntryBatch::of(entry)
            .map_err(|error| AppendError::Unavailable(format!("not serialisable: {error}")))?;
        let (bytes, max) = (batch.bytes(), self.queues.limits.entry_bytes());
        if bytes >= max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        Ok(batch)
    }

    /// Queues a batch; `first` provides the subject and the trace context of its entries.
    fn enqueue(
        &self,
        queue: &PartitionQueue,
        (partition, first): (Partition, &Entry),
        batch: EntryBatch,
        room: OwnedSemaphorePermit,
    ) -> Result<Answer, AppendError> {
        let subject = self.bus.names().input(partition, &first.body);
        let (answer, received) = oneshot::channel();
        let waiter = Waiter {
            answer,
            traceparent: first.traceparent.clone(),
            since: Instant::now(),
            room,
        };
        let queued = Queued {
            subject,
            batch,
            waiter,
        };
        queue.sender.try_send(queued).map_err(|_| closed())?;
        Ok(received)
    }
}

/// Result of appending a batch of entries.
#[derive(Debug, Default)]
#[must_use]
pub struct Appended {
    /// Positions of the first entries, which are durable.
    pub positions: Vec<Position>,
    /// Why the next entry has no position; later entries were not tried. `None` when all are durable.
    pub stopped: Option<AppendError>,
}

fn room_now(
    queue: &PartitionQueue,
    batch: &EntryBatch,
) -> Result<OwnedSemaphorePermit, AppendError> {
    let entries = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    let room = queue.room.clone().try_acquire_many_owned(entries);
    room.map_err(|_| AppendError::Unavailable("too many entries are waiting".to_owned()))
}

async fn received(answer: Answer) -> Result<Position, AppendError> {
    answer.await.unwrap_or_else(|_| Err(closed()))
}

fn closed() -> AppendError {
    AppendError::Unavailable("the service is shutting down".to_owned())
}
