//! The policy of a rollout for failing hosts.
//!
//! Source: docs/manifests.md.

use serde::{Deserialize, Serialize};

/// Reaction to a failing host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHealthFailure {
    /// Halts; the host stays on the failed closure.
    Halt,
    /// Halts; the host rolls back to the closure from before the dispatch.
    RollbackAndHalt,
}

impl OnHealthFailure {
    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Halt => "halt",
            Self::RollbackAndHalt => "rollback-and-halt",
        }
    }
}
