//! Inputs and outputs of a [`LeaseCore`](super::LeaseCore).

use nixfleet_proto::Timestamp;

use super::super::key_machine::Loss;
use super::super::record::{InstanceId, Record, RecordKey, VersionedContent, WriteResult};

/// Identity of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Instance name and process.
    pub writer: InstanceId,
    /// Release of the service.
    pub version: String,
    /// Start time of the process.
    pub since: Timestamp,
}

/// Command to the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Open the watch over the keys of the service again, beginning with their last values.
    Watch,
    /// Write a value with the time to live, if the key has the expected revision.
    Put {
        /// Identifies the answer.
        ticket: u64,
        /// Key to write.
        key: RecordKey,
        /// Value to write.
        record: Record,
        /// Last revision of the key; 0 when it does not exist.
        expected: u64,
    },
    /// Delete a key, if it has the expected revision.
    Delete {
        /// Identifies the answer.
        ticket: u64,
        /// Key to delete.
        key: RecordKey,
        /// Last revision of the key.
        expected: u64,
    },
    /// Read a key through the leader.
    Read {
        /// Identifies the answer.
        ticket: u64,
        /// Key to read.
        key: RecordKey,
    },
    /// Inform the workers.
    Signal(Signal),
}

/// Information for workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The key is held from now on.
    Acquired(String),
    /// The key must be handed over: end the work in order, then release the key.
    Recalled(String),
    /// The key is no longer held: stop at once.
    Lost(String, Loss),
    /// The key was released, or is left to expire.
    Released(String),
    /// This instance is a member.
    Joined,
    /// The record of this instance's name belongs to another process, or is unreadable.
    NameTaken(Option<InstanceId>),
}

/// Answer for a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a write.
    Written(WriteResult),
    /// To a read: the content of the key.
    Found(VersionedContent),
    /// To a read without an answer.
    NoAnswer,
}
