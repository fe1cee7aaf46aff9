//! Publishing to the logs: group commits to input logs, fenced publishes to output logs and of releases.

pub(crate) mod error;
#[cfg(feature = "shell")]
pub(crate) mod fenced_publishing;
#[cfg(feature = "shell")]
pub(crate) mod input_log;
pub(crate) mod log_writer;
pub(crate) mod message_ids;
#[cfg(feature = "shell")]
pub(crate) mod outgoing_message;
#[cfg(feature = "shell")]
pub(crate) mod output_log;
pub(crate) mod publish_reply;
#[cfg(feature = "shell")]
mod unfenced_publishing;
