//! Dead letters: messages that could not be decoded, stored with the reason and their origin.

#[cfg(feature = "shell")]
mod store;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use nixfleet_proto::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};

/// Most bytes of the original that a dead letter keeps; the message itself stays in its stream.
const KEPT_BYTES: usize = 256 * 1024;

/// A message that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndecodableMessage {
    /// Stream that holds it.
    pub stream: String,
    /// Its sequence in that stream.
    pub seq: u64,
    /// Its subject.
    pub subject: String,
    /// Why it could not be decoded.
    pub reason: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// A dead letter in its stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterRecord {
    /// Layout version.
    pub v: u32,
    /// Service that could not decode it.
    pub service: String,
    /// Stream that holds the message.
    pub stream: String,
    /// Sequence of the message in that stream.
    pub sequence: u64,
    /// Subject of the message.
    pub subject: String,
    /// Why it could not be decoded.
    pub reason: String,
    /// The first 256 KiB of the message in standard base64.
    pub payload: String,
    /// Size of the whole message in bytes.
    pub payload_bytes: usize,
}

impl DeadLetterRecord {
    /// The record of a message that a service could not decode.
    pub fn new(service: &str, letter: &UndecodableMessage) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_a_bounded_part_and_the_full_size() {
        let letter = UndecodableMessage {
            stream: "FLEET_IN_00".to_owned(),
            seq: 7,
            subject: "fleet.in.00.event.a.b".to_owned(),
            reason: "the frame is empty".to_owned(),
            payload: Bytes::from(vec![0; KEPT_BYTES + 9]),
        };
        let record = DeadLetterRecord::new("reducer", &letter);
        assert_eq!(record.payload_bytes, KEPT_BYTES + 9);
        assert_eq!(STANDARD.decode(record.payload).unwrap().len(), KEPT_BYTES);
    }
}
