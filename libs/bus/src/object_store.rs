//! The object store: artifacts of releases and checkpoints of partitions.

#[cfg(feature = "shell")]
pub(crate) mod checkpoints;
#[cfg(feature = "shell")]
mod chunks;
#[cfg(feature = "shell")]
pub(crate) mod manifests;
pub(crate) mod obsolete_checkpoints;
