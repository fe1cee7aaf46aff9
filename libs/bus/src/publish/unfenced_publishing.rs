//! Unfenced publishing: a message is sent until it is acknowledged.

use tokio::time::Instant;

use crate::Bus;
use crate::bus::backoff::{pause_before, pauses};
use crate::publish::error::PublishError;
use crate::publish::outgoing_message::OutgoingMessage;
use crate::publish::publish_reply::{PublishDecision, PublishRefusal};

impl Bus {
    /// Publishes without a fence until the acknowledgement or the deadline.
    pub(crate) async fn publish_plain(
        &self,
        message: OutgoingMessage,
    ) -> Result<u64, PublishError> {
        let deadline = Instant::now() + self.config().append_deadline();
        let mut pauses = pauses();
        loop {
            let settled = self.wait_verified(deadline).await;
            settled.map_err(PublishError::Unavailable)?;
            let reply = message.attempt(&self.connections().publish_js).await;
            let reason = match PublishDecision::of(reply) {
                PublishDecision::Stored(seq) => return Ok(seq),
                PublishDecision::Refused(refusal) => return Err(self.refused(&message, &refusal)),
                PublishDecision::Retry(reason) => reason,
            };
            if !pause_before(deadline, &mut pauses).await {
                return Err(PublishError::Unavailable(reason));
            }
        }
    }

    /// Converts a refusal that a retry does not change.
    pub(crate) fn refused(
        &self,
        message: &OutgoingMessage,
        refusal: &PublishRefusal,
    ) -> PublishError {
        match refusal {
            PublishRefusal::TooLarge => PublishError::TooLarge {
                bytes: message.payload.len(),
                max: self.connections().publish.max_payload(),
            },
            PublishRefusal::Full
            | PublishRefusal::LastSequence
            | PublishRefusal::Permanent(_)
            | PublishRefusal::Unknown(_) => PublishError::Unavailable(refusal.to_string()),
        }
    }
}
