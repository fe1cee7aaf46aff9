//! Answers of a control plane to the requests of an agent, as the shell of the agent gets them.

use std::time::Duration;

use nixfleet_agent::core::DeliveryResult;
use nixfleet_proto::wire::Dispatch;
use nixfleet_trust::release_bundle::Signed;

/// An answer and when it arrives.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// Time after the request.
    pub after: Duration,
    /// Absent: an error, or something that cannot be read.
    pub body: Option<T>,
}

/// The body of a reply to a heartbeat, as text: the agent parses it.
pub type ReplyText = String;
/// A result for each event of a request.
pub type EventResults = Vec<DeliveryResult>;
/// What a long-poll returned.
pub type Offer = Option<Dispatch>;

/// Artifacts as received.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The rollout manifest.
    pub manifest: Signed,
    /// The fleet.
    pub fleet: Signed,
}

impl<T> Answer<T> {
    /// An answer after so many milliseconds.
    pub fn after_millis(millis: u64, body: Option<T>) -> Self {
        Self {
            after: Duration::from_millis(millis),
            body,
        }
    }
}
