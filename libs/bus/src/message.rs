//! A message of a stream, as every reader gets it.

#[cfg(feature = "shell")]
mod nats_conversion;

use std::borrow::Cow;

use bytes::Bytes;
use nixfleet_proto::frame::MAX_OUTPUT_FRAME_BYTES;
use nixfleet_proto::{OutputFrame, Timestamp};

use crate::frame::compression;
use crate::frame::decode_error::DecodeError;

#[cfg(feature = "shell")]
pub(crate) use nats_conversion::{TRACEPARENT, VERSION, stored_bytes, timestamp};

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Sequence in its stream; the first is 1.
    pub seq: u64,
    /// Subject it was published on.
    pub subject: String,
    /// Message id of the publisher.
    pub msg_id: Option<String>,
    /// W3C trace context of the publisher.
    pub traceparent: Option<String>,
    /// Time at which the server stored it.
    pub time: Timestamp,
    /// The JSON document. A stored form that cannot be decoded is left unchanged;
    /// [`Message::encoding_fault`] has the reason.
    pub payload: Bytes,
    /// Bytes that the message takes in a JetStream file store: 30, the subject, the stored payload, and 4
    /// and the headers when there are any. Exact for messages of this crate; indexes, blocks and replicas
    /// of the store are not counted.
    pub stored_bytes: usize,
}

impl Message {
    /// Decodes the payload to JSON, where the stored form can be decoded.
    pub fn decoded(mut self) -> Self {
        if let Ok(Cow::Owned(json)) = compression::decode(&self.payload, MAX_OUTPUT_FRAME_BYTES) {
            self.payload = json.into();
        }
        self
    }

    /// Why the payload is still in its stored form; `None` when it is JSON.
    pub fn encoding_fault(&self) -> Option<DecodeError> {
        if !compression::is_labelled(&self.payload) {
            return None;
        }
        compression::decode(&self.payload, MAX_OUTPUT_FRAME_BYTES).err()
    }

    /// Size of the payload as JSON in bytes, whether it is decoded or not.
    pub fn json_bytes(&self) -> usize {
        compression::json_bytes(&self.payload, MAX_OUTPUT_FRAME_BYTES)
    }
}

/// The newest frame of an output log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFrame {
    /// Its sequence, which the fence of the next frame names.
    pub seq: u64,
    /// Its message id.
    pub msg_id: Option<String>,
    /// The frame.
    pub frame: OutputFrame,
}

/// Creation time and range of a stream; tells a stream from another one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIdentity {
    /// When it was created.
    pub created: Timestamp,
    /// First sequence it holds; one above `last_seq` when it is empty.
    pub first_seq: u64,
    /// Last sequence ever stored; 0 when there was none.
    pub last_seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: Bytes) -> Message {
        Message {
            seq: 1,
            subject: "fleet.out.00.a".to_owned(),
            msg_id: None,
            traceparent: None,
            time: Timestamp::UNIX_EPOCH,
            payload,
            stored_bytes: 7,
        }
    }

    #[test]
    fn a_message_has_json_or_an_encoding_fault() {
        let json = Bytes::from("[".to_owned() + &r#"{"entry":"HostEvent"},"#.repeat(9) + "7]");
        let stored = compression::encode(&json);
        assert_eq!(message(stored.clone()).json_bytes(), json.len());
        let decoded = message(stored.clone()).decoded();
        assert_eq!(decoded, message(json.clone()));
        assert!(decoded.encoding_fault().is_none());
        assert_eq!(message(json.clone()).decoded(), message(json));

        let torn = stored.slice(..stored.len() - 1);
        let left = message(torn.clone()).decoded();
        assert_eq!(left, message(torn));
        assert_eq!(
            left.encoding_fault().map(|fault| fault.name()),
            Some("compressed")
        );
    }
}
