//! How full the logs are, and how far they may be trimmed.

#[cfg(feature = "shell")]
mod jetstream_requests;
pub(crate) mod log_usage;
pub(crate) mod trim;
