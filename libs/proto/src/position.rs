//! Positions in the input log of a partition.
//!
//! Source: docs/wire-protocol.md, frames.

use serde::{Deserialize, Serialize};

/// Position of an entry in its partition's input log.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Sequence of the message in the input stream; the first is 1.
    pub seq: u64,
    /// Zero-based index in the frame.
    pub index: u32,
}

/// The last folded entry with the number of entries of its message, which tells a reader whether to
/// continue inside that message or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputMark {
    /// Sequence of the message.
    pub seq: u64,
    /// Index of the last folded entry.
    pub index: u32,
    /// Entries in that message; an undecodable message counts as one.
    pub of: u32,
}

impl InputMark {
    /// The first position that is not folded yet.
    pub fn next(self) -> Position {
        if self.index + 1 < self.of {
            Position {
                seq: self.seq,
                index: self.index + 1,
            }
        } else {
            Position {
                seq: self.seq + 1,
                index: 0,
            }
        }
    }
}
