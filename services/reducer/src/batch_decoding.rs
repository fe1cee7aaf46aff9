//! Decodes one batch of input messages; undecodable messages become dead letters.

use std::sync::Arc;

use nixfleet_bus::{Message, UndecodableMessage, decode_input};
use nixfleet_proto::{Entry, EntryBody, InputMark, Position, StoredAt};

use crate::input::input_item::InputItem;

/// Longest message id that is kept, as a frame has to hold it; ours are far shorter.
const MSG_ID_BYTES_MAX: usize = 512;

/// Decoded messages.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Items in order, undecodable messages among them.
    pub items: Vec<InputItem>,
    /// Dead letters, to store before the items are folded: messages are not read again.
    pub dead: Vec<UndecodableMessage>,
    /// Bytes of the messages in their log.
    pub bytes: u64,
}

/// Decodes the messages of a stream from `next` on. An undecodable message becomes a dead letter
/// and one item without an entry.
pub fn decode(stream: &str, messages: Vec<Message>, next: Position) -> Decoded {
    let mut decoded = Decoded::default();
    for message in messages {
        decoded.add(stream, message);
    }
    // The previous owner may have ended a frame inside the first message.
    decoded.items.retain(|item| item.position() >= next);
    decoded
}

impl Decoded {
    /// Checks the commands among the items: the fold rejects unchecked ones.
    pub fn check_commands(&mut self, mut check: impl FnMut(&mut Entry)) {
        let entries = self.items.iter_mut().filter_map(|item| item.entry.as_mut());
        for entry in entries {
            if let EntryBody::Operator { .. } = entry.body {
                check(entry);
            }
        }
    }

    fn add(&mut self, stream: &str, message: Message) {
        self.bytes += message.stored_bytes as u64;
        let (seq, stored_at) = (message.seq, StoredAt::new(message.time));
        let msg_id = message.msg_id.as_deref();
        let msg_id: Option<Arc<str>> = msg_id
            .filter(|id| id.len() <= MSG_ID_BYTES_MAX)
            .map(Arc::from);
        match decode_input(&message) {
            Ok(frame) => {
                let of = u32::try_from(frame.entries.len()).unwrap_or(u32::MAX);
                let entries = (0..).zip(frame.entries);
                self.items.extend(entries.map(|(index, entry)| InputItem {
                    mark: InputMark { seq, index, of },
                    stored_at,
                    msg_id: msg_id.clone(),
                    entry: Some(entry),
                }));
            }
            Err(error) => {
                self.dead.push(UndecodableMessage {
                    stream: stream.to_owned(),
                    seq,
                    subject: message.subject,
                    reason: format!("{:#}", anyhow::Error::new(error)),
                    payload: message.payload,
                });
                self.items.push(InputItem {
                    mark: InputMark {
                        seq,
                        index: 0,
                        of: 1,
                    },
                    stored_at,
                    msg_id,
                    entry: None,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_bus::compression;
    use nixfleet_proto::{InputFrame, LAYOUT_VERSION, Timestamp};

    use super::*;

    fn message(seq: u64, payload: Vec<u8>) -> Message {
        Message {
            seq,
            subject: "fleet.in.00.recovery.stable.4f".to_owned(),
            msg_id: Some(format!("id-{seq}")),
            traceparent: None,
            time: Timestamp::UNIX_EPOCH,
            payload: payload.into(),
            stored_bytes: 0,
        }
    }

    fn frame(entries: usize) -> Vec<u8> {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: "web-01".into(),
            current_closure: "c".into(),
        };
        let entry = Entry::new(Timestamp::UNIX_EPOCH, body);
        let frame = InputFrame {
            v: LAYOUT_VERSION,
            entries: vec![entry; entries],
        };
        serde_json::to_vec(&frame).unwrap()
    }

    #[test]
    fn undecodable_messages_become_dead_letters_and_keep_their_position() {
        let messages = vec![
            message(4, frame(3)),
            message(5, b"poison".to_vec()),
            message(6, compression::encode(&frame(1).into()).to_vec()).decoded(),
            message(7, vec![0x82]).decoded(),
        ];
        let decoded = decode("S", messages, Position { seq: 4, index: 2 });
        let items = decoded.items.iter();
        let found: Vec<_> = items
            .map(|item| (item.mark.seq, item.mark.index, item.entry.is_some()))
            .collect();
        let expected = [(4, 2, true), (5, 0, false), (6, 0, true), (7, 0, false)];
        assert_eq!(found, expected);
        assert_eq!(decoded.items[0].mark.of, 3);
        assert_eq!(decoded.items[1].msg_id.as_deref(), Some("id-5"));
        let dead: Vec<_> = decoded.dead.iter().map(|dead| dead.seq).collect();
        assert_eq!(dead, [5, 7]);
        let reason = &decoded.dead[1].reason;
        assert!(reason.contains("a newer release"), "{reason}");
        assert_eq!(decoded.dead[1].payload[..], [0x82]);
    }
}
