//! Unfenced publishing: a message is sent until it is acknowledged.

use tokio::time::Instant;

use crate::Bus;
use crate::bus::backoff::{pause_before, pauses};
use crate::publish::error::PublishError;
use crate::publish::outgoing_message::OutgoingMessage;
use crate::publish::publish_reply::{PublishDecision, PublishRefusal, PublishReply};

impl Bus {
    /// Publishes without a fence until the acknowledgement or the deadline.
    pub(crate) async fn publish_plain(
        &self,
        message: OutgoingMessage,
    ) -> Result<u64, PublishError> {
        match self.publish_decided(&message, PublishDecision::of).await? {
            Ok(seq) => Ok(seq),
            Err(refusal) => Err(self.refused(&message, &refusal)),
        }
    }

    /// Publishes a message that is the only one of its subject; `None` when the subject has one already.
    pub(crate) async fn publish_once(
        &self,
        message: OutgoingMessage,
    ) -> Result<Option<u64>, PublishError> {
        let message = message.fenced(0);
        let decide = |reply| match reply {
            PublishReply::Refused(PublishRefusal::LastSequence)
            | PublishReply::Stored {
                duplicate: true, ..
            } => PublishDecision::Refused(PublishRefusal::LastSequence),
            reply @ (PublishReply::Stored { .. } | PublishReply::Refused(_)) => {
                PublishDecision::of(reply)
            }
        };
        match self.publish_decided(&message, decide).await? {
            Ok(seq) => Ok(Some(seq)),
            Err(PublishRefusal::LastSequence) => Ok(None),
            Err(refusal) => Err(self.refused(&message, &refusal)),
        }
    }

    /// Sends a message until a reply decides or the deadline is over; the inner error is a refusal.
    async fn publish_decided(
        &self,
        message: &OutgoingMessage,
        decide: impl Fn(PublishReply) -> PublishDecision,
    ) -> Result<Result<u64, PublishRefusal>, PublishError> {
        let deadline = Instant::now() + self.config().append_deadline();
        let mut pauses = pauses();
        loop {
            let settled = self.wait_verified(deadline).await;
            settled.map_err(PublishError::Unavailable)?;
            let reply = message.attempt(&self.connections().publish_js).await;
            let reason = match decide(reply) {
                PublishDecision::Stored(seq) => return Ok(Ok(seq)),
                PublishDecision::Refused(refusal) => return Ok(Err(refusal)),
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
