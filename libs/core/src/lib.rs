//! The semantics of the log: the host machine, the rollout machine and the fold of a partition.
//!
//! Pure and deterministic: no clock, no IO, no randomness, no hash-map iteration; entries carry the time.
//! Must never know the transport of entries or the storage of states. Start reading at
//! [`partition::PartitionState::apply`], then [`host::step`] and [`rollout::step`].

pub mod heartbeat_recovery;
pub mod host;
pub mod json_lines;
pub mod partition;
pub mod rollout;
