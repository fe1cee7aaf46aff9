//! The one reader: every message of a stream from a position on, once and in order.
//!
//! It keeps its position itself and treats the broker's consumer as disposable: whenever something
//! looks wrong it makes a new one that starts at the position.

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
use crate::reader::position::{Arrival, LastRead, ReadPosition, SequenceGaps};

use super::read_error::ReadError;

/// The server says it is alive this often while there is nothing to deliver.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);
/// A pull request is renewed at least this often.
const PULL_EXPIRES: Duration = Duration::from_secs(10);
/// The server forgets a consumer nobody pulls from after this long.
const CONSUMER_LIFE: Duration = Duration::from_secs(30);
/// Consumers that may show the same hole before it counts as real.
const GAP_ATTEMPTS: u32 = 3;
/// Consecutive answers "no such stream" before it counts as gone.
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
    /// Messages the server still has for this reader, as of the last one delivered.
    pending: u64,
    /// Holes seen since the last message taken.
    gaps_seen: u32,
    /// When a silence is looked into. Kept here, so that callers who wait less than that and ask again
    /// do not put it off for ever.
    check_at: Instant,
    /// The stream was ahead at the last idle check.
    suspicious: bool,
    /// Consumers lost in a row, for the pause before the next.
    losses: u32,
    /// A batch ends with the message that reaches this size of JSON.
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
            suspicious: false,
            losses: 0,
            // What is pulled is bounded in its stored form, which may be far smaller.
            batch_bytes: bus.config().reader_batch_bytes,
            bus,
        }
    }

    /// Ends a batch with the message that makes it this large: for those who share work with another
    /// thread, and want it in small pieces.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Knows the stream by a message that was taken before: another one in its place is
    /// [`ReadError::Rewritten`] from the first batch on.
    #[must_use]
    pub fn with_last_read(mut self, last_read: LastRead) -> Self {
        self.last_read = last_read;
        self
    }

    /// Name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The first sequence not delivered yet.
    pub fn next_seq(&self) -> u64 {
        self.position.next()
    }

    /// Messages that were waiting in the stream behind the last one delivered: the reader's lag.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Waits for a message and returns it with whatever else is ready, at most `max`; never empty.
    /// Dropping the future loses nothing: the position moves only when messages are returned.
    ///
    /// # Errors
    /// [`ReadError`]; the reader must then be thrown away.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message>, ReadError> {
        let batch = self.next_stored(max).await?;
        Ok(batch.into_iter().map(Message::decoded).collect())
    }

    /// Like [`Reader::next_batch`], of messages in their stored form: callers decode them elsewhere
    /// ([`Message::decoded`]), or not at all.
    ///
    /// # Errors
    /// [`ReadError`]; the reader must then be thrown away.
    pub async fn next_stored(&mut self, max: usize) -> Result<Vec<Message>, ReadError> {
        loop {
            let Some(source) = &mut self.source else {
                self.open().await?;
                self.put_check_off();
                continue;
            };
            let next = tokio::select! {
                next = tokio::time::timeout_at(self.check_at, source.next()) => next,
                // A server that started again has forgotten the consumer; nobody else says so before
                // a heartbeat is missed.
                Ok(()) = self.connected.changed() => {
                    self.lose("reconnected", "the connection was made again");
                    continue;
                }
            };
            match next {
                Ok(Some(Ok(first))) => {
                    let batch = self.collect(&first, max.max(1))?;
                    self.put_check_off();
                    if !batch.is_empty() {
                        return Ok(batch);
                    }
                }
                Ok(Some(Err(error))) => self.lose("error", &error.to_string()),
                Ok(None) => self.lose("ended", "the consumer ended"),
                Err(_) => {
                    self.check_stall().await;
                    self.put_check_off();
                }
            }
        }
    }

    /// Gives the stream its time to be silent again.
    fn put_check_off(&mut self) {
        self.check_at = Instant::now() + self.bus.config().reader_stall();
    }

    /// Takes the first message and everything that is ready behind it, without waiting.
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
                Some(Err(error)) => self.lose("error", &error.to_string()),
                None => self.lose("ended", "the consumer ended"),
            }
        }
        if let Some(last) = batch.last() {
            if self.position.is_contiguous() {
                self.last_read.record(last.seq, last.msg_id.as_deref());
            }
            (self.gaps_seen, self.losses, self.suspicious) = (0, 0, false);
        }
        Ok(batch)
    }

    /// Adds a message to a batch if it is the next one, and returns the bytes of its JSON.
    fn accept(
        &mut self,
        raw: &jetstream::Message,
        batch: &mut Vec<Message>,
    ) -> Result<usize, ReadError> {
        let info = match raw.info() {
            Ok(info) => info,
            Err(error) => {
                self.lose("error", &error.to_string());
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
                self.lose("gap", "a message is missing");
            }
        }
        Ok(0)
    }

    /// Throws the consumer away; the next call makes a new one.
    fn lose(&mut self, reason: &'static str, detail: &str) {
        if self.source.take().is_some() {
            self.losses += 1;
            tracing::info!(stream = %self.stream, next = self.position.next(), reason, detail,
                "making a new consumer");
            metrics::counter!("nixfleet_bus_reader_resets_total",
                "stream" => self.stream.clone(), "reason" => reason)
            .increment(1);
        }
    }

    /// After a silence: a stream that is ahead twice in a row means that the consumer is dead.
    async fn check_stall(&mut self) {
        let context = &self.bus.connections().consume_js;
        let ahead = match stream_info(context, &self.stream).await {
            Ok(info) => info.state.last_sequence >= self.position.next(),
            Err(ReadFailure::Missing) => true,
            // The server is away; the missing heartbeat will tell.
            Err(ReadFailure::Retry(_)) => return,
        };
        if ahead && self.suspicious {
            self.suspicious = false;
            self.lose("stall", "the stream is ahead and nothing comes");
        } else {
            self.suspicious = ahead;
        }
    }

    /// Makes a consumer at the position, as often as it takes.
    async fn open(&mut self) -> Result<(), ReadError> {
        let mut missing = 0;
        let mut pauses = pauses();
        if self.losses > 1 {
            let step = Duration::from_millis(100) * self.losses.min(20);
            tokio::time::sleep(step).await;
        }
        loop {
            let context = self.bus.connections().consume_js.clone();
            self.connected.mark_unchanged();
            let reason = match stream_info(&context, &self.stream).await {
                Ok(info) => match self.begin(&context, StreamIdentity::new(&info)).await? {
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

    /// Holds the stream against what was read of it.
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

    /// Makes a consumer of a stream that is the one read so far, or gives the reason for another
    /// attempt.
    async fn begin(
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
        Ok(self.consumer(context).await)
    }

    async fn consumer(&self, context: &Context) -> Result<pull::Stream, String> {
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
