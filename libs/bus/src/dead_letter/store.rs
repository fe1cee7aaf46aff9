//! Storing dead letters.

use bytes::Bytes;
use tokio::time::Instant;

use super::{DeadLetterRecord, UndecodableMessage};
use crate::Bus;
use crate::bus::backoff::{pause_before, pauses};
use crate::publish::error::PublishError;
use crate::publish::outgoing_message::{OutgoingMessage, PublishRefusal};
use crate::publish::publish_reply::PublishReply;

impl Bus {
    /// Stores a dead letter and returns its sequence; `None` when this service has stored it before. Each letter
    /// has its own subject, which holds one message, so that restarts store no other.
    ///
    /// # Errors
    /// [`PublishError`], never `Fenced`.
    pub async fn store_dead_letter(
        &self,
        service: &str,
        letter: UndecodableMessage,
    ) -> Result<Option<u64>, PublishError> {
        let record = serde_json::to_vec(&DeadLetterRecord::new(service, &letter))
            .map_err(|error| PublishError::Unavailable(format!("not serialisable: {error}")))?;
        let id = format!("dead/{service}/{}/{}", letter.stream, letter.seq);
        let stream = self.names().dead_stream();
        let subject = self.names().dead(service, &letter.stream, letter.seq);
        let message = OutgoingMessage::new(&stream, subject, &id, Bytes::from(record)).fenced(0);
        let seq = self.store_once(&message).await?;
        if seq.is_some() {
            metrics::counter!("nixfleet_dead_letters_total", "service" => service.to_owned())
                .increment(1);
        }
        tracing::warn!(
            stream = letter.stream,
            seq = letter.seq,
            reason = letter.reason,
            "a message could not be read; find who wrote it, it is in the dead letters"
        );
        Ok(seq)
    }

    /// Sends a message that is fenced with an empty subject until it is stored; `None` when it is already.
    async fn store_once(&self, message: &OutgoingMessage) -> Result<Option<u64>, PublishError> {
        let deadline = Instant::now() + self.config().append_deadline();
        let mut pauses = pauses();
        loop {
            let settled = self.wait_verified(deadline).await;
            settled.map_err(PublishError::Unavailable)?;
            let reply = message.attempt(&self.connections().publish_js).await;
            let reason = match reply {
                PublishReply::Stored { seq, duplicate } => return Ok((!duplicate).then_some(seq)),
                PublishReply::Refused(PublishRefusal::LastSequence) => return Ok(None),
                PublishReply::Refused(PublishRefusal::Unknown(reason)) => reason,
                PublishReply::Refused(
                    refusal @ (PublishRefusal::Full
                    | PublishRefusal::TooLarge
                    | PublishRefusal::Permanent(_)),
                ) => return Err(self.refused(message, &refusal)),
            };
            if !pause_before(deadline, &mut pauses).await {
                return Err(PublishError::Unavailable(reason));
            }
        }
    }
}
