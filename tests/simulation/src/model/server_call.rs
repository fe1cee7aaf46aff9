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
    LastMessage(Log),
    /// The id of the message with a sequence.
    MessageIdAt(Log, u64),
    /// What the stream is and holds.
    Identity(Log),
    /// Messages of a log; waits until there is one.
    Fetch {
        /// The log.
        log: Log,
        /// The first sequence.
        from: u64,
        /// Most messages of the reply.
        max: usize,
    },
    /// How full both logs of a partition are.
    LogUsage(Partition),
    /// The output message with a sequence.
    OutputMessageAt(Partition, u64),
    /// First sequence of the output log, and the checkpoints that it announced last.
    AnnouncedCheckpoints(Partition),
    /// Delete the messages of a log before a sequence.
    Trim(Log, u64),
    /// Store a checkpoint.
    PutCheckpoint(Partition, CheckpointRef, Bytes),
    /// Load one.
    GetCheckpoint(Partition, CheckpointRef),
    /// Whether both are stored.
    AreCheckpointsStored(Partition, Checkpoints),
    /// Delete those that these took the place of.
    DeleteObsoleteCheckpoints(Partition, Checkpoints),
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
    LoadRows(Partition),
    /// All waiting dispatches with the cursors they stand at.
    Dispatches,
    /// One turn of an applier.
    Apply(Box<Turn>),
    /// Rows from a checkpoint, in place of those before.
    Restore(Box<Restore>),
}

/// The reply to a call, or that the time for it is over.
#[derive(Debug, Clone)]
pub struct CallResult {
    /// The number of the call, or of the timer.
    pub call: u64,
    /// Absent: no server replied in time, or a timer expired.
    pub reply: Option<ServerReply>,
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
            Self::LastMessage(_) | Self::MessageIdAt(..) | Self::Identity(_) => Connection::Reading,
            Self::Fetch { .. } | Self::EnsureLayout(_) => Connection::Reading,
            Self::LogUsage(_) | Self::OutputMessageAt(..) | Self::AnnouncedCheckpoints(_) => {
                Connection::Reading
            }
            Self::Trim(..) | Self::PutCheckpoint(..) | Self::GetCheckpoint(..) => {
                Connection::Reading
            }
            Self::AreCheckpointsStored(..) | Self::DeleteObsoleteCheckpoints(..) => {
                Connection::Reading
            }
            Self::PutLease(..) | Self::DeleteLease(..) => Connection::Leasing,
            Self::ReadLease(..) | Self::WatchLeases(_) => Connection::Leasing,
            Self::Cursor(_) | Self::Cursors | Self::LoadRows(_) => Connection::Database,
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
    StreamMissing,
    /// The last message.
    LastMessage(Option<Rc<StoredMessage>>),
    /// A message id.
    MessageId(Option<String>),
    /// A stream.
    Identity(StreamIdentity),
    /// Messages of a log.
    Messages {
        /// The messages.
        messages: Vec<Rc<StoredMessage>>,
        /// First and last sequence of the stream.
        identity: StreamIdentity,
        /// The message before the first requested sequence.
        previous: Option<Rc<StoredMessage>>,
    },
    /// Usage of both logs of a partition.
    LogUsage {
        /// The input log.
        input: LogUsage,
        /// The output log.
        output: LogUsage,
    },
    /// A message, when the stream holds it.
    OutputMessage(Option<Rc<StoredMessage>>),
    /// Checkpoints that an output log announced last.
    AnnouncedCheckpoints {
        /// First sequence of the output log.
        first_seq: u64,
        /// The checkpoints.
        checkpoints: Checkpoints,
    },
    /// So many messages are deleted.
    Trimmed(u64),
    /// The object is stored, or deleted.
    CheckpointDone,
    /// An object, when it is there.
    Checkpoint(Option<Bytes>),
    /// Whether objects are there.
    AreCheckpointsStored(bool),
    /// Streams are there.
    LayoutReady,
    /// To a write of a lease.
    LeaseWritten(WriteResult),
    /// To a read of a lease.
    LeaseFound(VersionedContent),
    /// A watch shows a key.
    LeaseChanged(RecordKey, VersionedContent),
    /// A watch has shown what there was.
    LeasesCaughtUp,
    /// The owner's answer.
    OwnerReply(Box<OwnerReply>),
    /// A cursor.
    Cursor(Option<Cursor>),
    /// Cursors.
    Cursors(RecordedPositions),
    /// How far a log is archived.
    ArchiveMark(Option<ArchiveMark>),
    /// Rows.
    Rows(Box<PartitionSnapshot>),
    /// Dispatches and cursors.
    Dispatches(Vec<DispatchRow>, Vec<(Partition, Cursor)>),
    /// To a turn: whether the cursor was where it was expected.
    Applied(bool),
}
