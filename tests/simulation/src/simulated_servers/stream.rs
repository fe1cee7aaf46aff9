//! The model of a JetStream stream: sequences, fences, both orders of a retried publish, a byte limit
//! and trimming.
//!
//! Source: docs/simulation.md, logs, checkpoints and trimming.

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use nixfleet_bus::{Fence, LogUsage, Message, read_input, read_output};
use nixfleet_proto::{InputFrame, OutputFrame, Timestamp};

/// Bytes that a stored message takes besides its subject and its payload.
const OVERHEAD_BYTES: u64 = 64;

/// A stored message.
#[derive(Debug)]
pub struct StoredMessage {
    /// Its sequence.
    pub seq: u64,
    /// Its id, for deduplication and recognition.
    pub msg_id: String,
    /// Its subject.
    pub subject: String,
    /// When it was stored.
    pub time: Timestamp,
    /// Its body.
    pub payload: Bytes,
    input: OnceCell<Option<Rc<InputFrame>>>,
    output: OnceCell<Option<Rc<OutputFrame>>>,
}

impl StoredMessage {
    /// The body as an input frame, as every reader decodes it; nothing when it is none.
    pub fn input(&self) -> Option<&Rc<InputFrame>> {
        let decoded = self
            .input
            .get_or_init(|| read_input(&self.payload).ok().map(Rc::new));
        decoded.as_ref()
    }

    /// The body as an output frame.
    pub fn output(&self) -> Option<&Rc<OutputFrame>> {
        let decoded = self
            .output
            .get_or_init(|| read_output(&self.payload).ok().map(Rc::new));
        decoded.as_ref()
    }

    /// Bytes that it takes in the stream.
    fn bytes(&self) -> u64 {
        (self.subject.len() + self.payload.len()) as u64 + OVERHEAD_BYTES
    }

    /// The message as the bus hands it out.
    pub fn message(&self) -> Message {
        Message {
            seq: self.seq,
            subject: self.subject.clone(),
            msg_id: Some(self.msg_id.clone()),
            traceparent: None,
            time: self.time,
            payload: self.payload.clone(),
            stored_bytes: self.subject.len() + self.payload.len(),
        }
    }
}

/// A message to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its id.
    pub msg_id: String,
    /// Its subject.
    pub subject: String,
    /// Its body.
    pub payload: Bytes,
    /// The last message the writer expects, when it fences.
    pub fence: Option<Fence>,
}

/// What is checked first when a message is published again; one replica and three replicas differ here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCheckOrder {
    /// The fence: the second time is refused, as on one replica.
    FenceFirst,
    /// The id: the second time is acknowledged as a duplicate, as on three replicas.
    IdFirst,
}

/// A positive acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Sequence of the message.
    pub seq: u64,
    /// True when it was stored before.
    pub duplicate: bool,
}

/// Why a message was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendRefusal {
    /// Its fence does not hold; the last sequence.
    LastSequence(u64),
    /// The stream is at its byte limit.
    Full,
}

/// One stream, with one subject space and no deletions from its middle.
#[derive(Debug, Clone)]
pub struct Stream {
    created: Timestamp,
    first_seq: u64,
    messages: VecDeque<Rc<StoredMessage>>,
    ids: BTreeMap<String, u64>,
    bytes: u64,
    max_bytes: u64,
}

impl Stream {
    /// An empty stream whose first message gets `first_seq`.
    pub fn new(created: Timestamp, first_seq: u64, max_bytes: u64) -> Self {
        Self {
            created,
            first_seq: first_seq.max(1),
            messages: VecDeque::new(),
            ids: BTreeMap::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Stores a message, unless it is stored already, its fence does not hold or the stream is full.
    ///
    /// # Errors
    /// [`AppendRefusal`].
    pub fn publish(
        &mut self,
        message: NewMessage,
        retry_order: RetryCheckOrder,
        time: Timestamp,
    ) -> Result<Ack, AppendRefusal> {
        let known = self.ids.get(&message.msg_id).copied();
        let last = self.last_seq();
        let fenced = message.fence.is_some_and(|fence| !self.holds(&fence));
        match (known, fenced, retry_order) {
            (Some(seq), false, _) | (Some(seq), true, RetryCheckOrder::IdFirst) => {
                return Ok(Ack {
                    seq,
                    duplicate: true,
                });
            }
            (Some(_), true, RetryCheckOrder::FenceFirst) | (None, true, _) => {
                return Err(AppendRefusal::LastSequence(last));
            }
            (None, false, _) => {}
        }
        let seq = last + 1;
        let stored = StoredMessage {
            seq,
            msg_id: message.msg_id,
            subject: message.subject,
            time,
            payload: message.payload,
            input: OnceCell::new(),
            output: OnceCell::new(),
        };
        let bytes = self.bytes + stored.bytes();
        if bytes > self.max_bytes {
            return Err(AppendRefusal::Full);
        }
        self.bytes = bytes;
        self.ids.insert(stored.msg_id.clone(), seq);
        self.messages.push_back(Rc::new(stored));
        Ok(Ack {
            seq,
            duplicate: false,
        })
    }

    /// True when a message with this id is stored.
    pub fn has_id(&self, msg_id: &str) -> bool {
        self.ids.contains_key(msg_id)
    }

    /// True while the last message is the one that a writer expects. In an empty stream, the expectation of no
    /// message holds at any first sequence.
    fn holds(&self, fence: &Fence) -> bool {
        let (last, subject) = match self.last() {
            Some(last) => (last.seq, Some(&last.subject)),
            None => (0, None),
        };
        fence.seq == last && (fence.subject.is_none() || fence.subject.as_ref() == subject)
    }

    /// When it was created.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Sequence of the first message it holds, or of the next one when it holds none.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Sequence of the last message, also when it was trimmed.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.messages.len() as u64 - 1
    }

    /// The message with that sequence.
    pub fn get(&self, seq: u64) -> Option<&Rc<StoredMessage>> {
        let index = seq.checked_sub(self.first_seq)?;
        self.messages.get(usize::try_from(index).ok()?)
    }

    /// The last message.
    pub fn last(&self) -> Option<&Rc<StoredMessage>> {
        self.messages.back()
    }

    /// Messages from a sequence on, at most so many.
    pub fn from(&self, seq: u64, max: usize) -> impl Iterator<Item = &Rc<StoredMessage>> {
        let skip = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        self.messages.iter().skip(skip).take(max)
    }

    /// Loses its last messages, at most so many, and the ids of those.
    pub fn lose_tail(&mut self, count: usize) -> Vec<Rc<StoredMessage>> {
        let kept = self.messages.len().saturating_sub(count);
        let lost: Vec<_> = self.messages.drain(kept..).collect();
        self.bytes -= lost.iter().map(|message| message.bytes()).sum::<u64>();
        let last = self.last_seq();
        self.ids.retain(|_, seq| *seq <= last);
        lost
    }

    /// Deletes the messages before a sequence; gives how many there were.
    pub fn trim(&mut self, first_kept: u64) -> u64 {
        let mut count = 0;
        while self.first_seq < first_kept
            && let Some(message) = self.messages.pop_front()
        {
            self.first_seq += 1;
            self.bytes -= message.bytes();
            count += 1;
        }
        count
    }

    /// Its usage.
    pub fn usage(&self) -> LogUsage {
        LogUsage {
            created: self.created,
            first_seq: self.first_seq,
            last_seq: self.last_seq(),
            messages: self.messages.len() as u64,
            bytes: self.bytes,
            max_bytes: self.max_bytes,
        }
    }

    /// Forgets ids, as the end of the deduplication window does.
    pub fn forget_ids(&mut self) {
        self.ids.clear();
    }
}

#[cfg(test)]
mod tests;
