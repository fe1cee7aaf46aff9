//! What is folded, one at a time.

use std::sync::Arc;

use nixfleet_proto::{Entry, InputMark, ManifestHash, Position};

/// One entry, or an undecodable message that is covered and passed over.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is.
    pub mark: InputMark,
    /// Message id of its message.
    pub msg_id: Option<Arc<str>>,
    /// Absent for an undecodable message.
    pub entry: Option<Entry>,
}

impl Item {
    /// Its position.
    pub fn position(&self) -> Position {
        Position {
            seq: self.mark.seq,
            index: self.mark.index,
        }
    }

    /// The manifest that must be at hand before it is folded.
    pub fn manifest(&self) -> Option<&ManifestHash> {
        self.entry.as_ref()?.body.opens()
    }
}
