//! What a takeover asks for, and what it is given.

use std::collections::BTreeSet;

use nixfleet_bus::{LastFrame, Message, PublishError};
use nixfleet_checkpoint::Checkpoint;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{CheckpointRef, ManifestHash, OutputFrame};

use crate::guard::Logs;
use crate::pins::Fetched;

/// What a takeover waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The cursor of the partition's rows.
    Cursor,
    /// The last output frame, read through the leader.
    LastFrame,
    /// The output frame at this sequence, which announces a checkpoint.
    Announcement(u64),
    /// This checkpoint.
    Checkpoint(CheckpointRef),
    /// Both logs, read through the leader, with the input's message ids at these sequences.
    Logs(BTreeSet<u64>),
    /// The fate of this frame, published behind this output sequence or not at all.
    Barrier {
        /// The frame.
        frame: Box<OutputFrame>,
        /// The sequence it must follow.
        expected: u64,
    },
    /// All rows of the partition, of one instant.
    Snapshot,
    /// What this manifest pins.
    Manifest(ManifestHash),
    /// The output messages of these sequences, or the first few of them.
    Frames {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Nothing: [`Takeover::finish`](super::Takeover::finish).
    Nothing,
}

/// What was asked for, in the same order as [`Need`].
#[derive(Debug)]
#[expect(missing_docs, reason = "the needs say what is what")]
pub enum Answer {
    Cursor(Option<Cursor>),
    LastFrame(Option<LastFrame>),
    Announcement(Option<OutputFrame>),
    Checkpoint(Result<Box<Checkpoint>, String>),
    Logs(Logs),
    Barrier(Result<u64, PublishError>),
    Snapshot(PartitionSnapshot),
    Manifest(Fetched),
    Frames(Vec<Message>),
}
