//! Why a host is held.

use nixfleet_proto::{Gate, Position};

/// Why a host is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The gate.
    pub gate: Gate,
    /// Text for people; changes only when the state does.
    pub reason: String,
    /// The entry of the host's own partition that caused it, when there is one.
    pub cause: Option<Position>,
}

impl Block {
    /// A block without a causing entry.
    pub fn new(gate: Gate, reason: impl Into<String>) -> Self {
        Self {
            gate,
            reason: reason.into(),
            cause: None,
        }
    }

    /// The same block with the entry that caused it.
    #[must_use]
    pub fn caused_by(self, position: Position) -> Self {
        Self {
            cause: Some(position),
            ..self
        }
    }
}
