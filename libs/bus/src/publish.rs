//! Publishing to the logs: group commits to input logs, fenced publishes to output logs and of releases.

pub(crate) mod error;
pub(crate) mod fence;
#[cfg(feature = "shell")]
pub(crate) mod fenced;
#[cfg(feature = "shell")]
pub(crate) mod input_log;
pub(crate) mod message_ids;
#[cfg(feature = "shell")]
pub(crate) mod outgoing;
#[cfg(feature = "shell")]
pub(crate) mod output_log;
pub(crate) mod publish_reply;
#[cfg(feature = "shell")]
mod unfenced;
