//! What processes ask the servers for, and what they are answered.

use std::rc::Rc;

use nixfleet_bus::StreamIdentity;
use nixfleet_bus::lease::{Record, RecordKey, Sighting, Written};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};

use super::database::{DispatchRow, Turn};
use crate::world::status::Service;

use super::log::{Ack, Publish, Stored, WrongLast};

/// The two logs of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// `FLEET_IN_pp`
    Input(Partition),
    /// `FLEET_OUT_pp`
    Output(Partition),
}

impl Log {
    /// Its partition.
    pub fn partition(self) -> Partition {
        match self {
            Self::Input(partition) | Self::Output(partition) => partition,
        }
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(partition) => write!(f, "in {partition}"),
            Self::Output(partition) => write!(f, "out {partition}"),
        }
    }
}

/// A call to a server.
#[derive(Debug)]
pub enum Op {
    /// Store a message.
    Publish(Log, Publish),
    /// The last message, through the leader.
    Last(Log),
    /// The id of the message with a sequence.
    IdAt(Log, u64),
    /// What the stream is and holds.
    Identity(Log),
    /// Messages from a sequence on, at most so many; waits until there is one.
    Fetch(Log, u64, usize),
    /// Create streams that are missing, above what the rows remember.
    EnsureLayout(Vec<(Partition, Cursor)>),
    /// A request to the owner of a partition.
    AskOwner(Partition, Box<OwnerHeartbeat>),
    /// Answer such a request.
    AnswerOwner(crate::world::event::Caller, Box<OwnerReply>),
    /// Write a lease or member record, behind the expected revision.
    PutLease(Service, RecordKey, Record, u64),
    /// Delete one.
    DeleteLease(Service, RecordKey, u64),
    /// Read one, through the leader.
    ReadLease(Service, RecordKey),
    /// Watch all of a service.
    WatchLeases(Service),
    /// A partition's cursor.
    Cursor(Partition),
    /// All cursors.
    Cursors,
    /// A partition's rows.
    Load(Partition),
    /// All waiting dispatches with the cursors they stand at.
    Dispatches,
    /// One turn of an applier.
    Apply(Box<Turn>),
}

/// Which server a call goes to, and over which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The broker, the connection that publishes.
    Publishing,
    /// The broker, the connection that reads.
    Reading,
    /// The broker, the connection for leases.
    Leasing,
    /// The database.
    Database,
}

impl Op {
    /// Where it goes.
    pub fn server(&self) -> Server {
        match self {
            Self::Publish(..) | Self::AskOwner(..) | Self::AnswerOwner(..) => Server::Publishing,
            Self::Last(_) | Self::IdAt(..) | Self::Identity(_) => Server::Reading,
            Self::Fetch(..) | Self::EnsureLayout(_) => Server::Reading,
            Self::PutLease(..) | Self::DeleteLease(..) => Server::Leasing,
            Self::ReadLease(..) | Self::WatchLeases(_) => Server::Leasing,
            Self::Cursor(_) | Self::Cursors | Self::Load(_) => Server::Database,
            Self::Dispatches | Self::Apply(_) => Server::Database,
        }
    }
}

/// An answer of a server.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To a publish.
    Published(Result<Ack, WrongLast>),
    /// The stream is not there.
    Missing,
    /// The last message.
    Last(Option<Rc<Stored>>),
    /// A message id.
    IdAt(Option<String>),
    /// A stream.
    Identity(StreamIdentity),
    /// Messages, what the stream holds, and the message in front of those that were asked for.
    Messages(Vec<Rc<Stored>>, StreamIdentity, Option<Rc<Stored>>),
    /// Streams are there.
    LayoutReady,
    /// To a write of a lease.
    LeaseWritten(Written),
    /// To a read of a lease.
    LeaseFound(Sighting),
    /// A watch shows a key.
    LeaseSeen(RecordKey, Sighting),
    /// A watch has shown what there was.
    LeasesCaughtUp,
    /// The owner's answer.
    Owner(Box<OwnerReply>),
    /// A cursor.
    Cursor(Option<Cursor>),
    /// Cursors.
    Cursors(Vec<(Partition, Cursor)>),
    /// Rows.
    Snapshot(Box<PartitionSnapshot>),
    /// Dispatches and cursors.
    Dispatches(Vec<DispatchRow>, Vec<(Partition, Cursor)>),
    /// To a turn: whether the cursor was where it was expected.
    Applied(bool),
}
