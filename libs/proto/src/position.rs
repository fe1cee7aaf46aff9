//! Places in the input log of a partition.
//!
//! Source: docs/wire-protocol.md, frames.

use serde::{Deserialize, Serialize};

/// Place of an entry in its partition's input log.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Sequence of the message in the input stream; the first is 1.
    pub seq: u64,
    /// Zero-based place in the frame.
    pub index: u32,
}

/// Where a run ends: the last entry folded and how many its message holds, so that a reader knows
/// whether to go on inside that message or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputMark {
    /// Sequence of the message.
    pub seq: u64,
    /// Place of the last folded entry in it.
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
