//! The stream reader: every message of a stream from a position on, once and in order.
//!
//! The reader keeps its position itself and treats the broker's consumer as disposable: on any fault it
//! creates a new consumer at the position.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, Context};
use futures::{FutureExt as _, StreamExt as _};
use nixfleet_proto::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Bus;
use crate::bus::backoff::pauses;
use crate::message::{Message, StreamIdentity};
use crate::reader::leader_reads::{ReadFailure, stream_info};
use crate::reader::read_position::{Arrival, LastRead, ReadPosition, SequenceGaps};

use super::read_error::ReadError;

/// Interval at which the server reports that it is alive while there is nothing to deliver.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);
/// Longest lifetime of a pull request.
const PULL_EXPIRES: Duration = Duration::from_secs(10);
/// Time without a pull after which the server deletes a consumer.
const CONSUMER_LIFE: Duration = Duration::from_secs(30);
/// Consumers that must show the same gap before it counts as real.
const GAP_ATTEMPTS: u32 = 3;
/// Consecutive answers "no such stream" before the stream counts as missing.
const MISSING_ATTEMPTS: u32 = 3;

/// Delivers the messages of one stream.
pub struct Reader {
    bus: Bus,
    stream: String,
    position: ReadPosition,
    source: Option<pull::Stream>,
    /// Changes when the connection was made again.
    connected: watch::Receiver<u64>,
    created: Option<Timestamp>,
    last_read: LastRead,
    /// Messages that the server has for this reader, as of the last one delivered.
    pending: u64,
    /// Gaps since the last message that was delivered.
    gaps_seen: u32,
    /// Time of the next stall check. It survives a dropped future, so that callers with short waits do not
    /// postpone the check forever.
    check_at: Instant,
    /// The stream was ahead at the last stall check.
    was_ahead: bool,
    /// Consumers lost in a row; determines the pause before the next one.
    consumers_lost: u32,
    /// Size of JSON in bytes at which a batch ends.
    batch_bytes: usize,
}

impl Reader {
    pub(crate) fn new(bus: Bus, stream: String, from_seq: u64, gaps: SequenceGaps) -> Self {
        Self {
            connected: bus.connections().consume_made.clone(),
            stream,
            position: ReadPosition::new(from_seq, gaps),
            source: None,
            created: None,
            last_read: LastRead::default(),
            pending: 0,
            gaps_seen: 0,
            check_at: Instant::now(),
            was_ahead: false,
            consumers_lost: 0,
            // Pull requests are limited by stored bytes, which may be far fewer.
            batch_bytes: bus.config().reader_batch_bytes,
            bus,
        }
    }

    /// Ends a batch with the message that reaches this size; for callers that convert batches on another
    /// thread and want small ones.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Identifies the stream by a message that was read before: the first batch fails with
    /// [`ReadError::Rewritten`] when another message replaced it.
    #[must_use]
    pub fn with_last_read(mut self, last_read: LastRead) -> Self {
        self.last_read = last_read;
        self
    }

    /// Name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Next sequence to deliver.
    pub fn next_seq(&self) -> u64 {
        self.position.next()
    }

    /// Messages that waited in the stream behind the last one delivered: the reader's lag.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Waits for a message and returns it with all others that are ready, at most `max`; never empty.
    /// Dropping the future loses nothing: the position advances only when messages are returned.
    ///
    /// # Errors
    /// [`ReadError`]; drop the reader then.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message>, ReadError> {
        let batch = self.next_stored(max).await?;
        Ok(batch.into_iter().map(Message::decoded).collect())
    }

    /// Like [`Reader::next_batch`], with messages in their stored form; callers decode them elsewhere with
    /// [`Message::decoded`], or not at all.
    ///
    /// # Errors
    /// [`ReadError`]; drop the reader then.
    pub async fn next_stored(&mut self, max: usize) -> Result<Vec<Message>, ReadError> {
        loop {
            let Some(source) = &mut self.source else {
                self.open_consumer().await?;
                self.reset_stall_check();
                continue;
            };
            let next = tokio::select! {
                next = tokio::time::timeout_at(self.check_at, source.next()) => next,
                // A restarted server has lost the consumer, which otherwise shows only as a missed
                // heartbeat.
                Ok(()) = self.connected.changed() => {
                    self.drop_consumer("reconnected", "the connection was made again");
                    continue;
                }
            };
            match next {
                Ok(Some(Ok(first))) => {
                    let batch = self.collect(&first, max.max(1))?;
                    self.reset_stall_check();
                    if !batch.is_empty() {
                        return Ok(batch);
                    }
                }
                Ok(Some(Err(error))) => self.drop_consumer("error", &error.to_string()),
                Ok(None) => self.drop_consumer("ended", "the consumer ended"),
                Err(_) => {
                    self.check_stall().await;
                    self.reset_stall_check();
                }
            }
        }
    }

    fn reset_stall_check(&mut self) {
        self.check_at = Instant::now() + self.bus.config().reader_stall();
    }

    /// Takes the first message and all others that are ready, without waiting.
    fn collect(
        &mut self,
        first: &jetstream::Message,
        max: usize,
    ) -> Result<Vec<Message>, ReadError> {
        let mut batch: Vec<Message> = Vec::new();
        let mut bytes = self.accept(first, &mut batch)?;
        while batch.len() < max && bytes < self.batch_bytes {
            let Some(ready) = self.source.as_mut().and_then(|s| s.next().now_or_never()) else {
                break;
            };
            match ready {
                Some(Ok(message)) => bytes += self.accept(&message, &mut batch)?,
                Some(Err(error)) => self.drop_consumer("error", &error.to_string()),
                None => self.drop_consumer("ended", "the consumer ended"),
            }
        }
        if let Some(last) = batch.last() {
            if self.position.is_contiguous() {
                self.last_read.record(last.seq, last.msg_id.as_deref());
            }
            (self.gaps_seen, self.consumers_lost, self.was_ahead) = (0, 0, false);
        }
        Ok(batch)
    }

    /// Adds a message to a batch if it is the next one, and returns the size of its JSON.
    fn accept(
        &mut self,
        raw: &jetstream::Message,
        batch: &mut Vec<Message>,
    ) -> Result<usize, ReadError> {
        let info = match raw.info() {
            Ok(info) => info,
            Err(error) => {
                self.drop_consumer("error", &error.to_string());
                return Ok(0);
            }
        };
        let wanted = self.position.next();
        let found = info.stream_sequence;
        match self.position.observe(found) {
            Arrival::Next => {
                self.pending = info.pending;
                let headers = raw.headers.as_ref();
                let message = Message::new(
                    found,
                    raw.subject.as_str(),
                    headers,
                    info.published,
                    raw.payload.clone(),
                );
                let bytes = message.json_bytes();
                batch.push(message);
                return Ok(bytes);
            }
            Arrival::Duplicate => {}
            Arrival::Gap if self.gaps_seen >= GAP_ATTEMPTS && batch.is_empty() => {
                let stream = self.stream.clone();
                return Err(ReadError::Gap {
                    stream,
                    wanted,
                    found,
                });
            }
            Arrival::Gap => {
                self.gaps_seen += 1;
                self.drop_consumer("gap", "a message is missing");
            }
        }
        Ok(0)
    }

    /// Drops the consumer; the next call creates a new one.
    fn drop_consumer(&mut self, reason: &'static str, detail: &str) {
        if self.source.take().is_some() {
            self.consumers_lost += 1;
            tracing::info!(stream = %self.stream, next = self.position.next(), reason, detail,
                "creating a new consumer");
            metrics::counter!("nixfleet_bus_reader_resets_total",
                "stream" => self.stream.clone(), "reason" => reason)
            .increment(1);
        }
    }

    /// Checks for a stall after a silence: when the stream is ahead twice in a row, the consumer is dead.
    async fn check_stall(&mut self) {
        let context = &self.bus.connections().consume_js;
        let ahead = match stream_info(context, &self.stream).await {
            Ok(info) => info.state.last_sequence >= self.position.next(),
            Err(ReadFailure::Missing) => true,
            // The server is unreachable; the missing heartbeat will show that.
            Err(ReadFailure::Retry(_)) => return,
        };
        if ahead && self.was_ahead {
            self.was_ahead = false;
            self.drop_consumer("stall", "the stream is ahead and delivers nothing");
        } else {
            self.was_ahead = ahead;
        }
    }

    async fn open_consumer(&mut self) -> Result<(), ReadError> {
        let mut missing = 0;
        let mut pauses = pauses();
        if self.consumers_lost > 1 {
            let step = Duration::from_millis(100) * self.consumers_lost.min(20);
            tokio::time::sleep(step).await;
        }
        loop {
            let context = self.bus.connections().consume_js.clone();
            self.connected.mark_unchanged();
            let reason = match stream_info(&context, &self.stream).await {
                Ok(info) => match self
                    .create_consumer(&context, StreamIdentity::new(&info))
                    .await?
                {
                    Ok(source) => {
                        self.source = Some(source);
                        return Ok(());
                    }
                    Err(reason) => reason,
                },
                Err(ReadFailure::Missing) => {
                    missing += 1;
                    if missing >= MISSING_ATTEMPTS {
                        let stream = self.stream.clone();
                        return Err(ReadError::Missing { stream });
                    }
                    "there is no such stream".to_owned()
                }
                Err(ReadFailure::Retry(reason)) => reason,
            };
            tracing::debug!(stream = %self.stream, reason, "no consumer yet");
            tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }

    /// Compares the stream with what was read of it.
    fn check(&mut self, identity: StreamIdentity) -> Result<(), ReadError> {
        let stream = self.stream.clone();
        let wanted = self.position.next();
        if self
            .created
            .is_some_and(|created| created != identity.created)
        {
            return Err(ReadError::Replaced { stream });
        }
        self.created = Some(identity.created);
        if self.position.is_trimmed(identity.first_seq) {
            let first = identity.first_seq;
            return Err(ReadError::Trimmed {
                stream,
                wanted,
                first,
            });
        }
        if self.position.is_ahead_of(identity.last_seq) {
            let last = identity.last_seq;
            return Err(ReadError::Regressed {
                stream,
                wanted,
                last,
            });
        }
        Ok(())
    }

    /// Creates a consumer when the stream is the one that was read so far, or returns the reason for a
    /// retry.
    async fn create_consumer(
        &mut self,
        context: &Context,
        identity: StreamIdentity,
    ) -> Result<Result<pull::Stream, String>, ReadError> {
        self.check(identity)?;
        if let Some(seq) = self.last_read.seq_to_verify(identity.first_seq) {
            match self.bus.message_id_at(&self.stream, seq).await {
                Ok(found) if self.last_read.is_replaced(found.as_deref()) => {
                    let stream = self.stream.clone();
                    return Err(ReadError::Rewritten { stream, seq });
                }
                Ok(_) => {}
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        Ok(self.request_consumer(context).await)
    }

    async fn request_consumer(&self, context: &Context) -> Result<pull::Stream, String> {
        let config = pull::Config {
            description: Some(self.bus.name().to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.position.next(),
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_LIFE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = context
            .create_consumer_on_stream(config, self.stream.as_str())
            .await
            .map_err(|error| error.to_string())?;
        let limits = self.bus.config();
        consumer
            .stream()
            .max_messages_per_batch(limits.reader_batch_messages)
            .max_bytes_per_batch(limits.reader_batch_bytes)
            .expires(PULL_EXPIRES)
            .heartbeat(IDLE_HEARTBEAT)
            .messages()
            .await
            .map_err(|error| error.to_string())
    }
}
