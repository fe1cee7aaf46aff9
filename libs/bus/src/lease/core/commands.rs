//! What goes in and out of a [`LeaseCore`](super::LeaseCore).

use nixfleet_proto::Timestamp;

use super::super::key_machine::Loss;
use super::super::record::{InstanceId, Record, RecordKey, VersionedContent, WriteResult};

/// Who an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name and process.
    pub writer: InstanceId,
    /// Release of the service.
    pub version: String,
    /// Start of the process.
    pub since: Timestamp,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Open the watch over the service's keys anew, from their last values on.
    Watch,
    /// Write a value with the time to live, if the key has the expected revision.
    Put {
        /// Names the answer.
        ticket: u64,
        /// Where.
        key: RecordKey,
        /// What.
        record: Record,
        /// The last revision of the key; 0 when there is none.
        expected: u64,
    },
    /// Delete a key, if it has the expected revision.
    Delete {
        /// Names the answer.
        ticket: u64,
        /// Which.
        key: RecordKey,
        /// Its last revision.
        expected: u64,
    },
    /// Ask the leader for a key.
    Read {
        /// Names the answer.
        ticket: u64,
        /// Which.
        key: RecordKey,
    },
    /// Tell the workers.
    Signal(Signal),
}

/// What workers have to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The key is held here from now on.
    Acquired(String),
    /// The key has to be given back: end the work in good order, then release it.
    Recalled(String),
    /// The key is not held any more: stop.
    Lost(String, Loss),
    /// The key was given back, or is left to expire.
    Released(String),
    /// This instance is a member.
    Joined,
    /// Another process lives under this instance's name, or a record nobody can read.
    NameTaken(Option<InstanceId>),
}

/// What came back for a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a write.
    Written(WriteResult),
    /// To a read: what the leader has.
    Found(VersionedContent),
    /// To a read: nobody answered.
    NoAnswer,
}
