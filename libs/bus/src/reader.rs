//! Reading streams: a reader for every message from a position on, and single reads through the leader.

#[cfg(feature = "shell")]
pub(crate) mod leader_reads;
#[cfg(feature = "shell")]
pub(crate) mod read_ahead;
#[cfg(feature = "shell")]
pub(crate) mod read_error;
pub(crate) mod read_position;
#[cfg(feature = "shell")]
pub(crate) mod stream_reader;
