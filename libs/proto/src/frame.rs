//! Frames: several entries or outcomes in one JetStream message.
//!
//! Source: docs/wire-protocol.md, frames.

use serde::{Deserialize, Serialize};

use crate::LAYOUT_VERSION;
use crate::checkpoint::Checkpoints;
use crate::entry::Entry;
use crate::outcome::Outcome;
use crate::position::{InputMark, Position};

/// Most entries in one frame: bounds what one message can make a reducer do at once.
pub const MAX_FRAME_ENTRIES: usize = 512;

/// Most bytes of one frame: half the server's default message limit.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;

/// Most bytes of one output frame: what the server's default limit of 1 MiB leaves after headers.
pub const MAX_OUTPUT_FRAME_BYTES: usize = 960 * 1024;

/// A message of an input stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputFrame {
    /// Layout version.
    pub v: u32,
    /// In order; a position's index counts from the first.
    pub entries: Vec<Entry>,
}

/// A message of an output stream: the outcomes of one turn of one owner. Only the last outcome that
/// changed a host has its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputFrame {
    /// Layout version.
    pub v: u32,
    /// Epoch of the owner; a takeover raises it by one.
    pub epoch: u64,
    /// First entry of the run; absent on a takeover barrier, which folds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_input: Option<Position>,
    /// Last folded input; absent before the first entry of the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_input: Option<InputMark>,
    /// Message id of the message at `lastInput`, when its publisher gave one. An input log with another
    /// message there was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_input_id: Option<String>,
    /// On a takeover barrier: the first output sequence that this owner rebuilt its state from. Absent
    /// for a complete state; 1 after a rebuild whose state is complete again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt_from: Option<u64>,
    /// Hash of the partition state after this frame; in some frames only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
    /// On a frame that announces a checkpoint: that one and the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<Checkpoints>,
    /// Sequence of the newest frame before this one that announces a checkpoint; absent while there is
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_at: Option<u64>,
    /// One per entry, in order.
    pub outcomes: Vec<Outcome>,
}

impl OutputFrame {
    /// An empty frame of an epoch.
    pub fn new(epoch: u64) -> Self {
        Self {
            v: LAYOUT_VERSION,
            epoch,
            first_input: None,
            last_input: None,
            last_input_id: None,
            rebuilt_from: None,
            state_hash: None,
            checkpoints: None,
            announced_at: None,
            outcomes: Vec::new(),
        }
    }

    /// The end of the frame's JSON, after the outcomes.
    pub const JSON_TAIL: &[u8] = b"]}";

    /// Writes the frame's JSON up to its outcomes. The caller appends the outcomes, separated by commas,
    /// and [`OutputFrame::JSON_TAIL`].
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn write_head(&self, json: &mut Vec<u8>) -> serde_json::Result<()> {
        let head = Self {
            last_input_id: self.last_input_id.clone(),
            state_hash: self.state_hash.clone(),
            checkpoints: self.checkpoints.clone(),
            outcomes: Vec::new(),
            ..*self
        };
        serde_json::to_writer(&mut *json, &head)?;
        // The list is the last field, and empty.
        json.truncate(json.len() - Self::JSON_TAIL.len());
        Ok(())
    }
}
