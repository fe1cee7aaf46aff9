//! The publisher of one input log: frames are sent one after the other. Each has the entries that arrived
//! while the frame before was in flight, and waits a little longer under load.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nixfleet_proto::Timestamp;
use nixfleet_proto::subject::Partition;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame_fill_threshold::{FRAME_INTERVAL, FrameFillThreshold};
use super::queues::{Queued, Waiter};
use crate::Bus;
use crate::bus::backoff::{pause_before, pauses};
use crate::frame::buffer::{Frame, FrameBuffer, FrameLimits};
use crate::publish::error::AppendError;
use crate::publish::outgoing_message::{OutgoingMessage, stored_form};
use crate::publish::publish_reply::{PublishDecision, PublishRefusal};

/// Destination of the frames of one partition.
#[derive(Clone)]
struct Sink {
    bus: Bus,
    context: Context,
    stream: String,
    partition: String,
    deadline: Duration,
}

impl Sink {
    fn new(bus: &Bus, partition: Partition) -> Self {
        Self {
            context: bus.connections().publish_js.clone(),
            stream: bus.names().input_stream(partition),
            partition: partition.to_string(),
            deadline: bus.config().append_deadline(),
            bus: bus.clone(),
        }
    }

    /// Publishes one frame with the same id in every attempt, and answers its waiters.
    async fn publish(self, frame: Frame<Waiter>) {
        let started = Instant::now();
        let oldest = frame.waiters.iter().map(|(_, waiter)| waiter.since).min();
        let deadline = oldest.unwrap_or(started) + self.deadline;
        let entries = frame.len();
        let result = self.store(&frame, deadline).await;
        metrics::histogram!("nixfleet_bus_publish_seconds", "log" => "input")
            .record(started.elapsed());
        metrics::histogram!("nixfleet_bus_frame_entries", "log" => "input").record(entries as f64);
        if let Err(error) = &result {
            tracing::warn!(partition = %self.partition, entries, %error, "a frame was not stored");
        }
        // Permits are returned together: each release locks the semaphore.
        let mut room: Option<OwnedSemaphorePermit> = None;
        for (waiter, answer) in frame.answers(result) {
            if waiter.answer.send(answer).is_err() {
                tracing::debug!(partition = %self.partition, "the waiter is gone");
            }
            match &mut room {
                Some(room) => room.merge(waiter.room),
                None => room = Some(waiter.room),
            }
        }
    }

    async fn store(&self, frame: &Frame<Waiter>, deadline: Instant) -> Result<u64, AppendError> {
        if Instant::now() >= deadline {
            let reason = "the deadline passed while earlier frames were sent".to_owned();
            return Err(AppendError::Unavailable(reason));
        }
        self.wait_verified(deadline).await?;
        let broker = self.broker_now(deadline).await?;
        frame.check_clock(broker).map_err(AppendError::Clock)?;
        let body = stored_form(frame.body()).await;
        let bytes = body.len();
        let mut waiters = frame.waiters.iter();
        let traceparent = waiters.find_map(|(_, waiter)| waiter.traceparent.as_deref());
        let id = self.bus.ids().next();
        let message = OutgoingMessage::new(&self.stream, frame.subject.clone(), &id, body)
            .traced(traceparent);
        let mut pauses = pauses();
        loop {
            let reason = match PublishDecision::of(message.attempt(&self.context).await) {
                PublishDecision::Stored(seq) => {
                    self.check_stored_in_time(frame, deadline).await?;
                    return self.durable(seq, deadline).await;
                }
                PublishDecision::Refused(refusal) => return Err(self.refused(&refusal, bytes)),
                PublishDecision::Retry(reason) => reason,
            };
            metrics::counter!("nixfleet_bus_publish_retries_total", "log" => "input").increment(1);
            if !pause_before(deadline, &mut pauses).await {
                return Err(AppendError::Unavailable(reason));
            }
        }
    }

    async fn broker_now(&self, deadline: Instant) -> Result<Timestamp, AppendError> {
        let mut pauses = pauses();
        loop {
            let reason = match self.bus.clock().broker_now(&self.stream).await {
                Ok(now) => return Ok(now),
                Err(reason) => reason,
            };
            if !pause_before(deadline, &mut pauses).await {
                return Err(AppendError::Unavailable(reason));
            }
        }
    }

    /// The fold rejects what was stored long after its stamps, and the sender must repeat it.
    async fn check_stored_in_time(
        &self,
        frame: &Frame<Waiter>,
        deadline: Instant,
    ) -> Result<(), AppendError> {
        if frame.was_stored_in_time(self.broker_now(deadline).await?) {
            return Ok(());
        }
        let reason = "the acknowledgement came too late after the entries were stamped".to_owned();
        Err(AppendError::Unavailable(reason))
    }

    async fn wait_verified(&self, deadline: Instant) -> Result<(), AppendError> {
        let settled = self.bus.wait_verified(deadline).await;
        settled.map_err(AppendError::Unavailable)
    }

    /// Checks the streams again, because the connection may have been made again while the message was in
    /// flight. A message on a server that lost its data or has older data is not durable.
    async fn durable(&self, seq: u64, deadline: Instant) -> Result<u64, AppendError> {
        self.wait_verified(deadline).await?;
        let acknowledged = self.bus.known_streams().acknowledge(&self.stream, seq);
        acknowledged.map_err(AppendError::Unavailable)?;
        Ok(seq)
    }

    fn refused(&self, refusal: &PublishRefusal, bytes: usize) -> AppendError {
        match refusal {
            PublishRefusal::Full => AppendError::Full(self.partition.clone()),
            PublishRefusal::TooLarge => {
                let max = self.bus.connections().publish.max_payload();
                AppendError::TooLarge { bytes, max }
            }
            PublishRefusal::LastSequence
            | PublishRefusal::Permanent(_)
            | PublishRefusal::Unknown(_) => AppendError::Unavailable(refusal.to_string()),
        }
    }
}

pub(super) struct Publisher {
    partition: Partition,
    sink: Sink,
    queued: mpsc::Receiver<Queued>,
    buffer: FrameBuffer<Waiter>,
    target: Arc<FrameFillThreshold>,
}

impl Publisher {
    pub(super) fn new(
        bus: &Bus,
        partition: Partition,
        queued: mpsc::Receiver<Queued>,
        (limits, target): (FrameLimits, Arc<FrameFillThreshold>),
    ) -> Self {
        Self {
            partition,
            sink: Sink::new(bus, partition),
            queued,
            buffer: FrameBuffer::new(limits),
            target,
        }
    }

    /// Publishes until the bus closes and every accepted entry is answered. An entry that finds the
    /// publisher idle is sent at once; entries that arrive while a frame is in flight, or shortly after,
    /// share the next frame.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        let mut in_flight: Option<BoxFuture<'static, ()>> = None;
        let mut open = true;
        let mut due = Instant::now();
        loop {
            if in_flight.is_none() {
                self.gather();
                let now = Instant::now();
                let leaves = now >= due || !open || !self.is_small();
                if let Some(frame) = leaves.then(|| self.buffer.take()).flatten() {
                    in_flight = Some(self.sink.clone().publish(frame).boxed());
                    due = now + FRAME_INTERVAL;
                }
            }
            if in_flight.is_none() && !open {
                break;
            }
            let waits = in_flight.is_none() && self.is_small();
            tokio::select! {
                () = tokio::time::sleep_until(due), if waits => {}
                () = closing.cancelled(), if !self.queued.is_closed() => self.queued.close(),
                // While a frame is in flight, entries collect in the queue: a wake-up for each would be
                // wasted.
                queued = self.queued.recv(), if open && in_flight.is_none() => match queued {
                    Some(queued) => self.buffer.push(queued.subject, queued.batch, queued.waiter),
                    None => open = false,
                },
                () = maybe(&mut in_flight) => {
                    in_flight = None;
                    self.buffer.finish_in_flight();
                }
            }
        }
        tracing::debug!(partition = %self.partition, "the input publisher ended");
    }

    /// True when the next frame may wait for more entries.
    fn is_small(&self) -> bool {
        self.buffer.is_small(self.target.get())
    }

    /// Takes every queued entry without waiting.
    fn gather(&mut self) {
        while let Ok(queued) = self.queued.try_recv() {
            self.buffer
                .push(queued.subject, queued.batch, queued.waiter);
        }
    }
}

/// Waits for the message in flight, or forever when there is none.
async fn maybe(in_flight: &mut Option<BoxFuture<'static, ()>>) {
    match in_flight {
        Some(publish) => publish.await,
        None => std::future::pending().await,
    }
}
