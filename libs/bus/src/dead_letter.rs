//! Dead letters: messages nobody could read, kept with the reason and where they came from.

#[cfg(feature = "shell")]
mod store;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use nixfleet_proto::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};

/// Most bytes of the original that are kept: it stays in its own stream, too.
const KEPT_BYTES: usize = 256 * 1024;

/// A message that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndecodableMessage {
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
pub struct DeadLetterRecord {
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

impl DeadLetterRecord {
    /// What a service stores of a message.
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
    fn the_kept_part_is_bounded_and_the_size_is_told() {
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
