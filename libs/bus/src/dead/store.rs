//! Storing dead letters, and every other publish without a fence.

use bytes::Bytes;
use tokio::time::Instant;

use super::{DeadLetter, DeadRecord};
use crate::Bus;
use crate::fate::{Attempt, PublishError, Refusal};
use crate::publish::{Outgoing, pauses};

impl Bus {
    /// Stores a dead letter and returns its sequence. The same message reported twice by a service
    /// within the duplicate window is stored once.
    ///
    /// # Errors
    /// [`PublishError`], never `Fenced`.
    pub async fn dead_letter(
        &self,
        service: &str,
        letter: DeadLetter,
    ) -> Result<u64, PublishError> {
        let record = serde_json::to_vec(&DeadRecord::new(service, &letter))
            .map_err(|error| PublishError::Unavailable(format!("not serialisable: {error}")))?;
        let id = format!("dead/{service}/{}/{}", letter.stream, letter.seq);
        let stream = self.names().dead_stream();
        let subject = self.names().dead(service);
        let seq = self
            .publish_plain(Outgoing::new(&stream, subject, &id, Bytes::from(record)))
            .await?;
        metrics::counter!("nixfleet_dead_letters_total", "service" => service.to_owned())
            .increment(1);
        tracing::warn!(
            stream = letter.stream,
            seq = letter.seq,
            reason = letter.reason,
            "a message could not be read"
        );
        Ok(seq)
    }

    /// Publishes without a fence until it is acknowledged or the deadline passed.
    pub(crate) async fn publish_plain(&self, message: Outgoing) -> Result<u64, PublishError> {
        let deadline = Instant::now() + self.config().append_deadline();
        let mut pauses = pauses();
        loop {
            let settled = self.settled(deadline).await;
            settled.map_err(PublishError::Unavailable)?;
            let reply = message.attempt(&self.connections().publish_js).await;
            let reason = match Attempt::of(reply) {
                Attempt::Stored(seq) => return Ok(seq),
                Attempt::Refused(refusal) => return Err(self.refused(&message, &refusal)),
                Attempt::Again(reason) => reason,
            };
            let pause = pauses.next().unwrap_or_default();
            if Instant::now() + pause >= deadline {
                return Err(PublishError::Unavailable(reason));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// A refusal that asking again does not change.
    pub(crate) fn refused(&self, message: &Outgoing, refusal: &Refusal) -> PublishError {
        match refusal {
            Refusal::TooLarge => PublishError::TooLarge {
                bytes: message.payload.len(),
                max: self.connections().publish.max_payload(),
            },
            Refusal::Full | Refusal::Fence | Refusal::Hopeless(_) | Refusal::Unknown(_) => {
                PublishError::Unavailable(refusal.to_string())
            }
        }
    }
}
