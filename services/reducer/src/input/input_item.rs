//! One item of the input log.

use std::sync::Arc;

use nixfleet_proto::{Entry, InputMark, ManifestHash, Position, StoredAt};

/// One entry, or an undecodable message, which the fold covers without an outcome.
#[derive(Debug, Clone)]
pub struct InputItem {
    /// Position of the item and size of its message.
    pub mark: InputMark,
    /// When the broker stored the message.
    pub stored_at: StoredAt,
    /// Message id of the message that holds the item.
    pub msg_id: Option<Arc<str>>,
    /// Absent for an undecodable message.
    pub entry: Option<Entry>,
}

impl InputItem {
    /// Position of the item in the log.
    pub fn position(&self) -> Position {
        Position {
            seq: self.mark.seq,
            index: self.mark.index,
        }
    }

    /// The manifest that must be fetched before the item is folded.
    pub fn manifest(&self) -> Option<&ManifestHash> {
        self.entry.as_ref()?.body.opens()
    }
}
