//! Requests of a takeover, and their responses.

use std::collections::BTreeSet;

use nixfleet_bus::{LastFrame, Message, PublishError};
use nixfleet_checkpoint::Checkpoint;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{CheckpointRef, ManifestHash, OutputFrame};

use super::log_check::PartitionLogs;
use crate::input::pinned_manifests::ManifestFetch;

/// Input that a takeover waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeoverRequest {
    /// The cursor of the partition's rows.
    Cursor,
    /// The last output frame, read through the leader.
    LastFrame,
    /// The output frame at this sequence, which announces a checkpoint.
    Announcement(u64),
    /// The checkpoint with this reference.
    Checkpoint(CheckpointRef),
    /// State of both logs, from the leader, with the input's message ids at these sequences.
    Logs(BTreeSet<u64>),
    /// The result of publishing this frame behind this output sequence.
    Barrier {
        /// The barrier frame.
        frame: Box<OutputFrame>,
        /// The output sequence that the frame must follow.
        expected: u64,
    },
    /// All rows of the partition, from one transaction.
    Snapshot,
    /// The pinned content of this manifest.
    Manifest(ManifestHash),
    /// The output messages of these sequences, or some of the first.
    Frames {
        /// First sequence.
        from: u64,
        /// Last sequence.
        to: u64,
    },
    /// Nothing: [`Takeover::finish`](super::Takeover::finish) returns the partition.
    Done,
}

/// Response to a [`TakeoverRequest`] of the same name.
#[derive(Debug)]
#[expect(missing_docs, reason = "TakeoverRequest documents each variant")]
pub enum TakeoverResponse {
    Cursor(Option<Cursor>),
    LastFrame(Option<LastFrame>),
    Announcement(Option<OutputFrame>),
    Checkpoint(Result<Box<Checkpoint>, String>),
    Logs(PartitionLogs),
    Barrier(Result<u64, PublishError>),
    Snapshot(PartitionSnapshot),
    Manifest(ManifestFetch),
    Frames(Vec<Message>),
}
