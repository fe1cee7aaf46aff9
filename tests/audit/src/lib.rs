//! What the hosts, the tables and the archive say, and whether they agree.
//!
//! Reads the database directly, as an auditor would, not through the services, and the hosts' side
//! from the swarm. It must never know how a run was made or what was broken in it. Start reading at
//! [`gather`] and [`Facts`].

pub mod check;
pub mod database;
mod facts;
pub mod standing;

pub use check::Check;
pub use facts::{ArchiveFacts, Facts, HostRow, RolloutRow, gather};
pub use standing::Standing;
