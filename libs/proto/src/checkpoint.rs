//! References to checkpoints: stored states of a partition.
//!
//! Source: docs/storage.md, checkpoints.

use serde::{Deserialize, Serialize};

use crate::position::InputMark;

/// Reference to a checkpoint: the stored state of a partition after an output frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRef {
    /// SHA-256 of the object's bytes in lower-case hexadecimal digits; the object's name.
    pub hash: String,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Last output sequence that the state covers.
    pub out_seq: u64,
    /// Last input that the state covers; absent before the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputMark>,
}

impl CheckpointRef {
    /// First output sequence after the checkpoint.
    pub fn next_output(&self) -> u64 {
        self.out_seq + 1
    }

    /// First input sequence that must stay in the log: the message with the last covered input, which
    /// identifies the log.
    pub fn first_input(&self) -> u64 {
        self.input.map_or(1, |mark| mark.seq)
    }
}

/// The two newest checkpoints of a partition; trimming keeps the logs after the older one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoints {
    /// The newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<CheckpointRef>,
    /// The one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<CheckpointRef>,
}

impl Checkpoints {
    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &CheckpointRef> {
        self.last.iter().chain(&self.previous)
    }

    /// The pair after a newer checkpoint.
    #[must_use]
    pub fn with(&self, newest: CheckpointRef) -> Self {
        Self {
            last: Some(newest),
            previous: self.last.clone(),
        }
    }

    /// Replaces the pair by the announcement of the next frame, if it has one.
    pub fn follow(&mut self, announced: Option<&Self>) {
        if let Some(announced) = announced {
            self.clone_from(announced);
        }
    }
}
