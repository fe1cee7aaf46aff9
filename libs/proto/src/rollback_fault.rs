//! Why a rollback that a policy asks for does not come.

use serde::{Deserialize, Serialize};

/// Why an expected rollback will not come.
///
/// Source: docs/semantics.md, host machine, rollback failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackFault {
    /// The host knows no closure that it may go back to.
    Impossible,
    /// Every attempt failed.
    Failed,
}
