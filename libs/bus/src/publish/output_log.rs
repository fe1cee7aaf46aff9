//! The output log of one partition: fenced publishing and reading of the last frame.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;
use tokio::time::Instant;

use crate::Bus;
use crate::frame::decode::{MAX_OUTPUT_FRAME_BYTES, decode_output};
use crate::frame::decode_error::DecodeError;
use crate::message::LastFrame;
use crate::publish::error::PublishError;
use crate::publish::fenced_publishing::Fenced;
use crate::publish::log_writer::LogWriter;
use crate::publish::outgoing_message::{OutgoingMessage, stored_form};
use crate::reader::leader_reads::LeaderReadError;

/// Why the last frame is unknown.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum LastFrameError {
    #[error(transparent)]
    Leader(#[from] LeaderReadError),
    /// A newer release wrote it, or the log is damaged.
    #[error(
        "the last output frame, sequence {seq}, cannot be read: upgrade this service when a newer release wrote \
         it, else see docs/operations/recovery-output-log-damaged.md"
    )]
    Undecodable {
        seq: u64,
        #[source]
        source: DecodeError,
    },
}

/// A frame that is stored in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence.
    pub seq: u64,
    /// Bytes that its message takes in the log.
    pub bytes: u64,
}

/// One writer's access to an output log. Clones are the same writer, which has at most one publish in
/// flight.
#[derive(Clone)]
pub struct OutputLog {
    bus: Bus,
    stream: String,
    /// Filter for the subjects of all writers.
    wildcard: String,
    writer: Arc<Mutex<LogWriter>>,
    /// Generation of the streams in which this writer began; its sequences are meaningless in a later one.
    generation: u64,
}

impl OutputLog {
    pub(crate) fn new(bus: Bus, partition: Partition) -> Self {
        Self {
            stream: bus.names().output_stream(partition),
            wildcard: bus.names().output_wildcard(partition),
            writer: Arc::new(Mutex::new(LogWriter::new(
                bus.names().output(partition, &bus.ids().next()),
            ))),
            generation: bus.known_streams().generation(),
            bus,
        }
    }

    /// Name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The last frame, read through the leader; `None` in an empty log, whose fence is 0.
    pub async fn last(&self) -> Result<Option<LastFrame>, LastFrameError> {
        let Some(message) = self.bus.last_message(&self.stream).await? else {
            return Ok(None);
        };
        let seq = message.seq;
        self.writer().observed(seq, &message.subject);
        let frame = decode_output(&message)
            .map_err(|source| LastFrameError::Undecodable { seq, source })?;
        Ok(Some(LastFrame {
            seq,
            msg_id: message.msg_id,
            frame,
        }))
    }

    /// Publishes a frame if the last one has the expected sequence (0 in an empty log) and is the one that
    /// this writer read or wrote; returns the sequence of the new frame. After a lost acknowledgement it
    /// reads the last frame to learn whether the frame is stored.
    pub async fn publish(
        &self,
        frame: &OutputFrame,
        expected_seq: u64,
    ) -> Result<u64, PublishError> {
        let payload = serde_json::to_vec(frame).map_err(not_serialisable)?;
        let stored = Self::encode(payload.into()).await?;
        let stored = self.publish_stored(stored, expected_seq, None).await?;
        Ok(stored.seq)
    }

    /// The stored form of a frame's JSON; can be computed while the frame before it is in flight.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub async fn encode(json: Bytes) -> Result<Bytes, PublishError> {
        let (bytes, max) = (json.len(), MAX_OUTPUT_FRAME_BYTES);
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        Ok(stored_form(json).await)
    }

    /// Like [`OutputLog::publish_stored`], with the number of outcomes for metrics and the trace context of
    /// the turn.
    pub async fn publish_encoded(
        &self,
        (outcomes, stored): (usize, Bytes),
        expected_seq: u64,
        traceparent: Option<&str>,
    ) -> Result<Stored, PublishError> {
        metrics::histogram!("nixfleet_bus_frame_entries", "log" => "output")
            .record(outcomes as f64);
        self.publish_stored(stored, expected_seq, traceparent).await
    }

    /// Like [`OutputLog::publish`], with a frame in its stored form.
    pub async fn publish_stored(
        &self,
        stored: Bytes,
        expected_seq: u64,
        traceparent: Option<&str>,
    ) -> Result<Stored, PublishError> {
        let id = self.bus.ids().next();
        let (subject, fence) = {
            let writer = self.writer();
            (writer.subject().to_owned(), writer.fence(expected_seq))
        };
        let message = OutgoingMessage::new(&self.stream, subject, &id, stored)
            .following(&fence, &self.wildcard)
            .traced(traceparent);
        let fenced = Fenced {
            bus: &self.bus,
            stream: &self.stream,
            log: ">",
            id: &id,
            fence: &fence,
            generation: self.generation,
        };
        let started = Instant::now();
        let result = fenced.publish(&message).await;
        let result = result.map(|seq| {
            self.writer().stored(seq);
            let bytes = message.stored_bytes() as u64;
            Stored { seq, bytes }
        });
        metrics::histogram!("nixfleet_bus_publish_seconds", "log" => "output")
            .record(started.elapsed());
        result
    }

    fn writer(&self) -> MutexGuard<'_, LogWriter> {
        // Every change is one assignment, so that a panic elsewhere leaves no partial change.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_serialisable(error: serde_json::Error) -> PublishError {
    PublishError::Unavailable(format!("not serialisable: {error}"))
}
