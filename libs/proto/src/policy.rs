//! What the policy of a rollout says about hosts that fail.
//!
//! Source: docs/manifests.md.

use serde::{Deserialize, Serialize};

/// What happens on a host that fails: stop, or stop and go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHealthFailure {
    /// Stay on the failed closure and stop.
    Halt,
    /// Go back to the closure from before the dispatch and stop.
    RollbackAndHalt,
}

impl OnHealthFailure {
    /// The name as in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Halt => "halt",
            Self::RollbackAndHalt => "rollback-and-halt",
        }
    }
}
