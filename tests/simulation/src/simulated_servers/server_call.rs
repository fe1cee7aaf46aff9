//! Calls of processes to servers, and the replies.

use std::rc::Rc;

use bytes::Bytes;
use nixfleet_bus::lease::{Record, RecordKey, VersionedContent, WriteResult};
use nixfleet_bus::{LogUsage, StreamIdentity};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{CheckpointRef, Checkpoints};

use super::database::{ArchiveMark, DispatchRow, RecordedPositions, Restore, Turn};
use super::log_id::LogId;
use super::stream::{Ack, AppendRefusal, NewMessage, StoredMessage};
use crate::addressing::{Caller, Service};

/// A call to a server.
#[derive(Debug)]
pub enum ServerRequest {
    /// Store a message.
    Publish(LogId, NewMessage),
    /// The last message, through the leader.
    LastMessage(LogId),
    /// The id of the message with a sequence.
    MessageIdAt(LogId, u64),
    /// Creation time, first and last sequence of a stream.
    Identity(LogId),
    /// Messages of a log; waits until there is one.
    Fetch {
        /// The log.
        log: LogId,
        /// The first sequence.
        from: u64,
        /// Most messages of the reply.
        max: usize,
    },
    /// Usage of both logs of a partition.
    LogUsage(Partition),
    /// The output message with a sequence.
    OutputMessageAt(Partition, u64),
    /// First sequence of the output log, and the checkpoints that it announced last.
    AnnouncedCheckpoints(Partition),
    /// Delete the messages of a log before a sequence.
    Trim(LogId, u64),
    /// Store a checkpoint.
    PutCheckpoint(Partition, CheckpointRef, Bytes),
    /// Load a checkpoint.
    GetCheckpoint(Partition, CheckpointRef),
    /// Whether checkpoints are stored.
    AreCheckpointsStored(Partition, Checkpoints),
    /// Delete checkpoints that these replace.
    DeleteObsoleteCheckpoints(Partition, Checkpoints),
    /// Create missing streams above the recorded positions.
    EnsureLayout(RecordedPositions),
    /// A request to the owner of a partition.
    AskOwner(Partition, Box<OwnerHeartbeat>),
    /// The reply to such a request.
    AnswerOwner(Caller, Box<OwnerReply>),
    /// Write a lease or member record, when it has the expected revision.
    PutLease(Service, RecordKey, Record, u64),
    /// Delete a record.
    DeleteLease(Service, RecordKey, u64),
    /// Read a record, through the leader.
    ReadLease(Service, RecordKey),
    /// Watch all records of a service.
    WatchLeases(Service),
    /// A partition's cursor.
    Cursor(Partition),
    /// All cursors, those of the archive too.
    Cursors,
    /// How far a log is archived.
    ArchiveMark(LogId),
    /// One transaction of the archive: moves its mark from a sequence.
    Archive(LogId, u64, ArchiveMark),
    /// A partition's rows.
    LoadRows(Partition),
    /// All queued dispatches with the cursors of their partitions.
    Dispatches,
    /// One turn of an applier.
    Apply(Box<Turn>),
    /// Replace rows by those of a checkpoint.
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

/// The connection of a call, and with it its server.
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

    /// Its connection.
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

/// The reply of a server.
#[derive(Debug, Clone)]
pub enum ServerReply {
    /// To a publish.
    Published(Result<Ack, AppendRefusal>),
    /// The stream does not exist.
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
    /// A message of the output log, when it holds it.
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
    /// A checkpoint, when it is stored.
    Checkpoint(Option<Bytes>),
    /// Whether the checkpoints are stored.
    AreCheckpointsStored(bool),
    /// The streams exist.
    LayoutReady,
    /// To a write of a lease.
    LeaseWritten(WriteResult),
    /// To a read of a lease.
    LeaseFound(VersionedContent),
    /// A watch reports the value of a key.
    LeaseChanged(RecordKey, VersionedContent),
    /// A watch has reported all present values.
    LeasesCaughtUp,
    /// The reply of the owner.
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
