//! How full the logs are, and how far they may be trimmed.

#[cfg(feature = "shell")]
mod jetstream;
pub(crate) mod trim;
pub(crate) mod usage;
