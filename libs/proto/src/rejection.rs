//! Rejections of entries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Reason of a rejection.
///
/// Source: docs/semantics.md, outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The sequence is not above the last accepted one.
    Stale,
    /// The state does not allow it.
    Illegal,
    /// A condition does not hold.
    Invariant,
    /// No such rollout, host or quarantine.
    Unknown,
    /// A newer leader exists.
    Fenced,
    /// `receivedAt` is too far from the broker's time: the clock of the writer is wrong.
    Clock,
    /// No trusted console signed the command.
    Unsigned,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Stale,
        Self::Illegal,
        Self::Invariant,
        Self::Unknown,
        Self::Fenced,
        Self::Clock,
        Self::Unsigned,
    ];

    /// The name in logs, metrics and outcomes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Illegal => "illegal",
            Self::Invariant => "invariant",
            Self::Unknown => "unknown",
            Self::Fenced => "fenced",
            Self::Clock => "clock",
            Self::Unsigned => "unsigned",
        }
    }
}

/// An entry refused, with reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Reason, for programs.
    pub reason: Reason,
    /// Explanation, for people.
    pub message: String,
}

impl Rejection {
    /// A rejection with its explanation.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The state does not allow the event.
    pub fn illegal(state: &str, event: &str) -> Self {
        Self::new(Reason::Illegal, format!("{event} is not legal in {state}"))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.message)
    }
}
