//! Last-seen times of hosts in bulk, on a core NATS subject: the next heartbeat repeats a lost message.

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt as _;
use nixfleet_proto::LAYOUT_VERSION;
use nixfleet_proto::wire::{LivenessFlush, LivenessReport};

use crate::Bus;
use crate::frame::decode::decode;

/// Hosts per message; with some 200 bytes each, far below the server's message limit.
const HOSTS_PER_FLUSH: usize = 1_000;
/// Largest message that is read.
const FLUSH_BYTES_MAX: usize = 1024 * 1024;

/// The bus cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("last-seen times cannot be published or received: {0}")]
pub struct LivenessError(String);

impl LivenessError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Bus {
    /// Publishes last-seen times, in several messages when there are many.
    pub async fn publish_liveness(&self, hosts: &[LivenessReport]) -> Result<(), LivenessError> {
        let client = &self.connections().publish;
        for chunk in hosts.chunks(HOSTS_PER_FLUSH) {
            let flush = LivenessFlush {
                v: LAYOUT_VERSION,
                hosts: chunk.to_vec(),
            };
            let payload = serde_json::to_vec(&flush).map_err(LivenessError::new)?;
            client
                .publish(self.names().liveness(), Bytes::from(payload))
                .await
                .map_err(LivenessError::new)?;
        }
        Ok(())
    }

    /// Subscribes to last-seen times; each message goes to one member of the queue group.
    pub async fn subscribe_liveness(&self, queue_group: &str) -> Result<Liveness, LivenessError> {
        let client = &self.connections().consume;
        let subscriber = client
            .queue_subscribe(self.names().liveness(), queue_group.to_owned())
            .await
            .map_err(LivenessError::new)?;
        let confirmed = super::confirm_subscriptions(client).await;
        confirmed.map_err(LivenessError::new)?;
        Ok(Liveness { subscriber })
    }
}

/// Last-seen times as they come in.
pub struct Liveness {
    subscriber: Subscriber,
}

impl Liveness {
    /// The next message; `None` when the connection was closed. Malformed messages are counted and skipped.
    pub async fn next(&mut self) -> Option<LivenessFlush> {
        loop {
            let message = self.subscriber.next().await?;
            match decode::<LivenessFlush>(&message.payload, FLUSH_BYTES_MAX) {
                Ok(flush) => return Some(flush),
                Err(error) => {
                    metrics::counter!("nixfleet_hostile_input_total", "kind" => "liveness")
                        .increment(1);
                    tracing::warn!(%error, "a malformed liveness message was ignored");
                }
            }
        }
    }
}
