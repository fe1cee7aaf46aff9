//! The output log of one partition: fenced publishing and the question "is the last frame mine?".

use std::time::Duration;

use bytes::Bytes;
use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;
use tokio::time::Instant;

use crate::Bus;
use crate::decode::{DecodeError, MAX_OUTPUT_FRAME_BYTES, decode_output};
use crate::leader::LeaderError;
use crate::publish::{Outgoing, Refusal, pauses};

/// Why a frame was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Somebody else appended after the expected sequence: this writer is not the owner any more.
    #[error("another writer appended: the last sequence is {last}, expected {expected}")]
    Fenced {
        /// The sequence this writer expected.
        expected: u64,
        /// The one that is there.
        last: u64,
    },
    /// The message is over the limit. Nothing was stored; split the run.
    #[error("a message of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// No answer in time. The message may be stored or not: read the last one before going on.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
}

/// Why the last frame is not known.
#[derive(Debug, thiserror::Error)]
pub enum LastFrameError {
    /// The leader did not answer.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// It is there and cannot be read: a newer release wrote it, or the log is damaged.
    #[error("the last output frame, sequence {seq}, cannot be read")]
    Undecodable {
        /// Its sequence.
        seq: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

/// The newest frame of an output log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFrame {
    /// Its sequence, the fence of the next one.
    pub seq: u64,
    /// Its message id.
    pub msg_id: Option<String>,
    /// The frame.
    pub frame: OutputFrame,
}

/// The one writer's access to an output log.
#[derive(Clone)]
pub struct OutputLog {
    bus: Bus,
    stream: String,
    subject: String,
}

impl OutputLog {
    pub(crate) fn new(bus: Bus, partition: Partition) -> Self {
        Self {
            stream: bus.names().output_stream(partition),
            subject: bus.names().output(partition),
            bus,
        }
    }

    /// Name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The newest frame, read through the leader; absent in an empty log, where the fence is 0.
    ///
    /// # Errors
    /// [`LastFrameError`].
    pub async fn last(&self) -> Result<Option<LastFrame>, LastFrameError> {
        let last = self.bus.last_by_subject(&self.stream, &self.subject);
        let Some(message) = last.await? else {
            return Ok(None);
        };
        let seq = message.seq;
        let frame = decode_output(&message)
            .map_err(|source| LastFrameError::Undecodable { seq, source })?;
        Ok(Some(LastFrame {
            seq,
            msg_id: message.msg_id,
            frame,
        }))
    }

    /// Appends a frame if the last one has the expected sequence (0 in an empty log), and returns
    /// its own. A lost acknowledgement is resolved here by reading the last frame.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(
        &self,
        frame: &OutputFrame,
        expected_seq: u64,
    ) -> Result<u64, PublishError> {
        self.publish_traced(frame, expected_seq, None).await
    }

    /// Like [`OutputLog::publish`], with the trace context of the turn.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish_traced(
        &self,
        frame: &OutputFrame,
        expected_seq: u64,
        traceparent: Option<&str>,
    ) -> Result<u64, PublishError> {
        let payload = serde_json::to_vec(frame)
            .map_err(|error| PublishError::Unavailable(format!("not serialisable: {error}")))?;
        let (bytes, max) = (payload.len(), MAX_OUTPUT_FRAME_BYTES);
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        let id = self.bus.ids().next();
        let message = Outgoing::new(
            &self.stream,
            self.subject.clone(),
            &id,
            Bytes::from(payload),
        )
        .fenced(expected_seq)
        .traced(traceparent);
        let fenced = Fenced {
            bus: &self.bus,
            stream: &self.stream,
            id: &id,
            expected: expected_seq,
        };
        let started = Instant::now();
        let result = fenced.publish(&message).await;
        metrics::histogram!("nixfleet_bus_publish_seconds", "log" => "output")
            .record(started.elapsed());
        metrics::histogram!("nixfleet_bus_frame_entries", "log" => "output")
            .record(frame.outcomes.len() as f64);
        result
    }
}

/// One fenced publish until its fate is known.
pub(crate) struct Fenced<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) stream: &'a str,
    pub(crate) id: &'a str,
    pub(crate) expected: u64,
}

impl Fenced<'_> {
    /// Sends, and on anything but a plain acknowledgement asks the leader whose the last message
    /// is. A retry of a stored message is answered by error 10071 on one replica and by `duplicate`
    /// on three, so neither answer decides by itself.
    pub(crate) async fn publish(&self, message: &Outgoing) -> Result<u64, PublishError> {
        let deadline = Instant::now() + self.bus.config().append_deadline();
        let mut pauses = pauses();
        loop {
            let reason = match message.send(&self.bus.connections().publish_js).await {
                Ok(ack) if !ack.duplicate => return Ok(ack.sequence),
                Ok(_) => "the server knows this message already".to_owned(),
                Err(Refusal::TooLarge) => {
                    return Err(PublishError::TooLarge {
                        bytes: message.payload.len(),
                        max: self.bus.connections().publish.max_payload(),
                    });
                }
                Err(Refusal::Hopeless(reason)) => return Err(PublishError::Unavailable(reason)),
                Err(refusal @ (Refusal::Fence | Refusal::Full | Refusal::Unknown(_))) => {
                    refusal.to_string()
                }
            };
            if let Some(seq) = self.settled(&message.subject).await? {
                return Ok(seq);
            }
            let log = if self.stream.contains("_OUT_") {
                "output"
            } else {
                "manifest"
            };
            metrics::counter!("nixfleet_bus_publish_retries_total", "log" => log).increment(1);
            let pause = pauses.next().unwrap_or(Duration::from_secs(1));
            if Instant::now() + pause >= deadline {
                return Err(PublishError::Unavailable(reason));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The sequence when the last message is this one; nothing when the log still stands where it
    /// was expected, so that the same message may be sent again.
    async fn settled(&self, subject: &str) -> Result<Option<u64>, PublishError> {
        let last = self
            .bus
            .last_by_subject(self.stream, subject)
            .await
            .map_err(|error| PublishError::Unavailable(error.to_string()))?;
        let expected = self.expected;
        match last {
            Some(last) if last.msg_id.as_deref() == Some(self.id) => Ok(Some(last.seq)),
            Some(last) if last.seq == expected => Ok(None),
            None if expected == 0 => Ok(None),
            other => Err(PublishError::Fenced {
                expected,
                last: other.map_or(0, |message| message.seq),
            }),
        }
    }
}
