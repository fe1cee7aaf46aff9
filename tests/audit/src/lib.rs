//! State of hosts, tables and archive, and checks of their consistency.
//!
//! Reads the database directly, as an auditor would, not through the services, and the hosts' state from
//! the swarm. It must never depend on how a run was produced or which faults were injected. Start reading
//! at [`observe`] and [`ObservedState`].

pub mod check;
pub mod database;
mod observed_state;
pub mod partition_summary;

pub use check::Check;
pub use observed_state::{ArchiveCounts, HostRow, ObservedState, RolloutRow, observe};
pub use partition_summary::PartitionSummary;
