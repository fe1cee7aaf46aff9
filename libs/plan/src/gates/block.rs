//! Blocks: reasons of a gate to hold a host.

use nixfleet_proto::{Gate, Position};

/// Reason of a gate to hold a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The gate.
    pub gate: Gate,
    /// Explanation for people; changes only with the state.
    pub reason: String,
    /// The causing entry, when it is in the host's own partition.
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
