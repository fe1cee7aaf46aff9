//! Storing dead letters.

use bytes::Bytes;

use super::{DeadLetterRecord, UndecodableMessage};
use crate::Bus;
use crate::publish::error::PublishError;
use crate::publish::outgoing_message::OutgoingMessage;

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
        let message = OutgoingMessage::new(&stream, subject, &id, Bytes::from(record));
        let seq = self.publish_once(message).await?;
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
}
