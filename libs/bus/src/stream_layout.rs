//! Streams, buckets and constants of a fleet: created, compared with the configuration, and restored when
//! the server lost them.

#[cfg(feature = "shell")]
mod desired_streams;
#[cfg(feature = "shell")]
pub(crate) mod ensure;
#[cfg(feature = "shell")]
pub(crate) mod known_streams;
#[cfg(feature = "shell")]
mod maintenance;
#[cfg(feature = "shell")]
mod reconcile;
pub(crate) mod sequence_floors;
