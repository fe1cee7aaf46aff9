//! One batch of messages on its way into the fold: decode, set aside what cannot be read, fetch
//! what the entries name.

use anyhow::Context as _;
use nixfleet_bus::{Bus, DeadLetter, Message, decode_input};
use nixfleet_proto::{InputMark, Position};

use crate::ended::Ended;
use crate::folder::Item;
use crate::manifests::Manifests;

/// Name of the service on the bus.
pub const SERVICE: &str = "reducer";

/// Turns messages into items, from `next` on; an undecodable message becomes a dead letter and one
/// item without an entry.
///
/// # Errors
/// Fails when a dead letter cannot be stored: its message must not be passed over unseen.
pub async fn decode(
    bus: &Bus,
    stream: &str,
    messages: Vec<Message>,
    next: Position,
) -> Result<Vec<Item>, Ended> {
    let mut items = Vec::new();
    for message in messages {
        let seq = message.seq;
        match decode_input(&message) {
            Ok(frame) => {
                let of = u32::try_from(frame.entries.len()).unwrap_or(u32::MAX);
                items.extend((0..).zip(frame.entries).map(|(index, entry)| Item {
                    mark: InputMark { seq, index, of },
                    entry: Some(entry),
                }));
            }
            Err(error) => {
                let letter = DeadLetter {
                    stream: stream.to_owned(),
                    seq,
                    subject: message.subject,
                    reason: format!("{:#}", anyhow::Error::new(error)),
                    payload: message.payload,
                };
                bus.dead_letter(SERVICE, letter)
                    .await
                    .context("storing a dead letter")
                    .map_err(Ended::Failed)?;
                let (index, of) = (0, 1);
                items.push(Item {
                    mark: InputMark { seq, index, of },
                    entry: None,
                });
            }
        }
    }
    // The owner before may have ended a frame inside the first message.
    items.retain(|item| item.position() >= next);
    Ok(items)
}

/// Fetches what the manifests of the items pin.
///
/// # Errors
/// As [`Manifests::ensure`].
pub async fn prepare(manifests: &mut Manifests, items: &[Item]) -> Result<(), Ended> {
    for item in items {
        if let Some(hash) = item.manifest() {
            manifests.ensure(hash).await?;
        }
    }
    Ok(())
}
