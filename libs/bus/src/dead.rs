//! Dead letters: messages nobody could read, kept with the reason and where they came from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use nixfleet_proto::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Bus;
use crate::output::PublishError;
use crate::publish::{Outgoing, Refusal, pauses};

/// Most bytes of the original that are kept: it stays in its own stream, too.
const KEPT_BYTES: usize = 256 * 1024;

/// A message that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stream it is in.
    pub stream: String,
    /// Its sequence there.
    pub seq: u64,
    /// Its subject.
    pub subject: String,
    /// Why it could not be read.
    pub reason: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// A dead letter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadRecord {
    /// Layout version.
    pub v: u32,
    /// Who could not read it.
    pub service: String,
    /// The stream the message is in.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Why it could not be read.
    pub reason: String,
    /// Its bytes, standard base64, the first 256 KiB.
    pub payload: String,
    /// Its whole size in bytes.
    pub payload_bytes: usize,
}

impl DeadRecord {
    fn new(service: &str, letter: &DeadLetter) -> Self {
        let kept = &letter.payload[..letter.payload.len().min(KEPT_BYTES)];
        Self {
            v: LAYOUT_VERSION,
            service: service.to_owned(),
            stream: letter.stream.clone(),
            sequence: letter.seq,
            subject: letter.subject.clone(),
            reason: letter.reason.clone(),
            payload: STANDARD.encode(kept),
            payload_bytes: letter.payload.len(),
        }
    }
}

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
            let reason = match message.send(&self.connections().publish_js).await {
                Ok(ack) => return Ok(ack.sequence),
                Err(Refusal::TooLarge) => {
                    return Err(PublishError::TooLarge {
                        bytes: message.payload.len(),
                        max: self.connections().publish.max_payload(),
                    });
                }
                Err(refusal @ (Refusal::Hopeless(_) | Refusal::Full)) => {
                    return Err(PublishError::Unavailable(refusal.to_string()));
                }
                Err(refusal @ (Refusal::Fence | Refusal::Unknown(_))) => refusal.to_string(),
            };
            let pause = pauses.next().unwrap_or_default();
            if Instant::now() + pause >= deadline {
                return Err(PublishError::Unavailable(reason));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_part_is_bounded_and_the_size_is_told() {
        let letter = DeadLetter {
            stream: "FLEET_IN_00".to_owned(),
            seq: 7,
            subject: "fleet.in.00.event.a.b".to_owned(),
            reason: "the frame is empty".to_owned(),
            payload: Bytes::from(vec![0; KEPT_BYTES + 9]),
        };
        let record = DeadRecord::new("reducer", &letter);
        assert_eq!(record.payload_bytes, KEPT_BYTES + 9);
        assert_eq!(STANDARD.decode(record.payload).unwrap().len(), KEPT_BYTES);
    }
}
