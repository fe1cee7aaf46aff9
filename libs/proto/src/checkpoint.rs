//! Checkpoints: what names the state of a partition that is stored outside its logs.
//!
//! Source: docs/storage.md, checkpoints.

use serde::{Deserialize, Serialize};

use crate::position::InputMark;

/// Names one checkpoint: the state of a partition after an output frame, as a stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRef {
    /// SHA-256 of the object's bytes in lower-case hexadecimal digits; its name in the store.
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
    /// First output sequence that a state restored from it still needs.
    pub fn next_output(&self) -> u64 {
        self.out_seq + 1
    }

    /// First input sequence that must stay in the log: the message that holds the last input covered,
    /// by which the log is recognised.
    pub fn first_input(&self) -> u64 {
        self.input.map_or(1, |mark| mark.seq)
    }
}

/// The two newest checkpoints of a partition: the logs are kept behind the older one.
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

    /// These with one more, which becomes the newest.
    #[must_use]
    pub fn with(&self, newest: CheckpointRef) -> Self {
        Self {
            last: Some(newest),
            previous: self.last.clone(),
        }
    }

    /// Takes over what the next frame announces, when it announces any.
    pub fn follow(&mut self, announced: Option<&Self>) {
        if let Some(announced) = announced {
            self.clone_from(announced);
        }
    }
}
