//! What the log means: the host machine, the rollout machine and the fold of a partition.
//!
//! Pure: no clock, no IO, no randomness, no hash order; time arrives with the entries. It must never
//! know how entries travel or where state is kept. Start reading at
//! [`partition::PartitionState::apply`], then [`host::step`] and [`rollout::step`].

pub mod debug;
pub mod host;
pub mod partition;
pub mod recovery;
pub mod rollout;
