//! What processes ask the servers for, and what they are answered.

use std::rc::Rc;

use bytes::Bytes;
use nixfleet_bus::lease::{Record, RecordKey, VersionedContent, WriteResult};
use nixfleet_bus::{LogUsage, StreamIdentity};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{CheckpointRef, Checkpoints};

use super::database::{ArchiveMark, DispatchRow, RecordedPositions, Restore, Turn};
use super::partition_log::Log;
use super::stream::{Ack, AppendRefusal, NewMessage, StoredMessage};
use crate::addressing::{Caller, Service};

/// A call to a server.
#[derive(Debug)]
pub enum ServerRequest {
    /// Store a message.
    Publish(Log, NewMessage),
    /// The last message, through the leader.
    Last(Log),
    /// The id of the message with a sequence.
    IdAt(Log, u64),
    /// What the stream is and holds.
    Identity(Log),
    /// Messages from a sequence on, at most so many; waits until there is one.
    Fetch(Log, u64, usize),
    /// How full both logs of a partition are.
    Fills(Partition),
    /// The output message with a sequence.
    OutputAt(Partition, u64),
    /// First sequence of the output log, and the checkpoints that it announced last.
    Announced(Partition),
    /// Delete the messages of a log before a sequence.
    Trim(Log, u64),
    /// Store a checkpoint.
    PutCheckpoint(Partition, CheckpointRef, Bytes),
    /// Load one.
    GetCheckpoint(Partition, CheckpointRef),
    /// Whether both are stored.
    HoldsCheckpoints(Partition, Checkpoints),
    /// Delete those that these took the place of.
    KeepCheckpoints(Partition, Checkpoints),
    /// Create streams that are missing, above what the database remembers.
    EnsureLayout(RecordedPositions),
    /// A request to the owner of a partition.
    AskOwner(Partition, Box<OwnerHeartbeat>),
    /// Answer such a request.
    AnswerOwner(Caller, Box<OwnerReply>),
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
    /// All cursors, those of the archive too.
    Cursors,
    /// How far a log is archived.
    ArchiveMark(Log),
    /// One transaction of the archive: moves its mark from a sequence.
    Archive(Log, u64, ArchiveMark),
    /// A partition's rows.
    Load(Partition),
    /// All waiting dispatches with the cursors they stand at.
    Dispatches,
    /// One turn of an applier.
    Apply(Box<Turn>),
    /// Rows from a checkpoint, in place of those before.
    Restore(Box<Restore>),
}

/// Which server a call goes to, and over which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Connection {
    /// The broker, the connection that publishes.
    Publishing,
    /// The broker, the connection that reads.
    Reading,
    /// The broker, the connection for leases.
    Leasing,
    /// The database.
    Database,
}

impl ServerRequest {
    /// True when it trims a log.
    pub fn is_trim(&self) -> bool {
        matches!(self, Self::Trim(..))
    }

    /// Where it goes.
    pub fn server(&self) -> Connection {
        match self {
            Self::Publish(..) | Self::AskOwner(..) | Self::AnswerOwner(..) => {
                Connection::Publishing
            }
            Self::Last(_) | Self::IdAt(..) | Self::Identity(_) => Connection::Reading,
            Self::Fetch(..) | Self::EnsureLayout(_) => Connection::Reading,
            Self::Fills(_) | Self::OutputAt(..) | Self::Announced(_) => Connection::Reading,
            Self::Trim(..) | Self::PutCheckpoint(..) | Self::GetCheckpoint(..) => {
                Connection::Reading
            }
            Self::HoldsCheckpoints(..) | Self::KeepCheckpoints(..) => Connection::Reading,
            Self::PutLease(..) | Self::DeleteLease(..) => Connection::Leasing,
            Self::ReadLease(..) | Self::WatchLeases(_) => Connection::Leasing,
            Self::Cursor(_) | Self::Cursors | Self::Load(_) => Connection::Database,
            Self::ArchiveMark(_) | Self::Archive(..) => Connection::Database,
            Self::Dispatches | Self::Apply(_) | Self::Restore(_) => Connection::Database,
        }
    }
}

/// An answer of a server.
#[derive(Debug, Clone)]
pub enum ServerReply {
    /// To a publish.
    Published(Result<Ack, AppendRefusal>),
    /// The stream is not there.
    Missing,
    /// The last message.
    Last(Option<Rc<StoredMessage>>),
    /// A message id.
    IdAt(Option<String>),
    /// A stream.
    Identity(StreamIdentity),
    /// Messages, what the stream holds, and the message in front of those that were asked for.
    Messages(
        Vec<Rc<StoredMessage>>,
        StreamIdentity,
        Option<Rc<StoredMessage>>,
    ),
    /// Both logs of a partition.
    Fills(LogUsage, LogUsage),
    /// A message, when the stream holds it.
    At(Option<Rc<StoredMessage>>),
    /// What a log announced, and where it begins.
    Announced(u64, Checkpoints),
    /// So many messages are deleted.
    Trimmed(u64),
    /// The object is stored, or deleted.
    CheckpointDone,
    /// An object, when it is there.
    Checkpoint(Option<Bytes>),
    /// Whether objects are there.
    HoldsCheckpoints(bool),
    /// Streams are there.
    LayoutReady,
    /// To a write of a lease.
    LeaseWritten(WriteResult),
    /// To a read of a lease.
    LeaseFound(VersionedContent),
    /// A watch shows a key.
    LeaseSeen(RecordKey, VersionedContent),
    /// A watch has shown what there was.
    LeasesCaughtUp,
    /// The owner's answer.
    Owner(Box<OwnerReply>),
    /// A cursor.
    Cursor(Option<Cursor>),
    /// Cursors.
    Cursors(RecordedPositions),
    /// How far a log is archived.
    ArchiveMark(Option<ArchiveMark>),
    /// Rows.
    Snapshot(Box<PartitionSnapshot>),
    /// Dispatches and cursors.
    Dispatches(Vec<DispatchRow>, Vec<(Partition, Cursor)>),
    /// To a turn: whether the cursor was where it was expected.
    Applied(bool),
}
