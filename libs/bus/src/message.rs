//! A message of a stream, as every reader sees it.

#[cfg(feature = "shell")]
mod client;

use bytes::Bytes;
use nixfleet_proto::{OutputFrame, Timestamp};

#[cfg(feature = "shell")]
pub(crate) use client::{TRACEPARENT, VERSION, timestamp};

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Sequence in its stream; the first is 1.
    pub seq: u64,
    /// Subject it was published on.
    pub subject: String,
    /// Message id of the publisher.
    pub msg_id: Option<String>,
    /// W3C trace context of the publisher.
    pub traceparent: Option<String>,
    /// When the server stored it.
    pub time: Timestamp,
    /// The bytes.
    pub payload: Bytes,
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

/// What tells a stream from another one with the same name, and the range it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIdentity {
    /// When it was created.
    pub created: Timestamp,
    /// First sequence it still holds; one above `last_seq` when it is empty.
    pub first_seq: u64,
    /// Last sequence ever stored; 0 when nothing was.
    pub last_seq: u64,
}
