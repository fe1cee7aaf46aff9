//! Heartbeats: core NATS requests from ingest to the owner of the partition. Nothing is stored.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};

use crate::Bus;

/// Largest request; a heartbeat has a few names and times.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Why a heartbeat has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum HeartbeatError {
    #[error("partition {0} has no owner at present")]
    NoOwner(Partition),
    #[error("the owner of partition {0} did not answer in time")]
    TimedOut(Partition),
    #[error("the heartbeat was not answered: {0}")]
    Failed(String),
}

impl HeartbeatError {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Bus {
    /// Sends a heartbeat to the owner of a partition and returns its answer.
    ///
    /// # Errors
    /// [`HeartbeatError`]; all are transient.
    pub async fn request_heartbeat(
        &self,
        partition: Partition,
        heartbeat: &OwnerHeartbeat,
        deadline: Duration,
    ) -> Result<OwnerReply, HeartbeatError> {
        let payload = serde_json::to_vec(heartbeat).map_err(HeartbeatError::failed)?;
        let request = Request::new()
            .payload(Bytes::from(payload))
            .timeout(Some(deadline));
        let subject = self.names().heartbeat(partition);
        let sent = self.connections().publish.send_request(subject, request);
        // The client's own timeout starts when the request is sent; this one also covers a connection that
        // is down.
        let answer = tokio::time::timeout(deadline, sent)
            .await
            .map_err(|_| HeartbeatError::TimedOut(partition))?
            .map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => HeartbeatError::NoOwner(partition),
                RequestErrorKind::TimedOut => HeartbeatError::TimedOut(partition),
                RequestErrorKind::InvalidSubject
                | RequestErrorKind::MaxPayloadExceeded
                | RequestErrorKind::Other => HeartbeatError::failed(error),
            })?;
        serde_json::from_slice(&answer.payload).map_err(HeartbeatError::failed)
    }

    /// Subscribes to the heartbeats of a partition; only its owner may.
    ///
    /// # Errors
    /// [`HeartbeatError::Failed`] when the subscription fails.
    pub async fn serve_heartbeats(
        &self,
        partition: Partition,
    ) -> Result<Heartbeats, HeartbeatError> {
        let client = self.connections().consume.clone();
        let subscriber = client
            .subscribe(self.names().heartbeat(partition))
            .await
            .map_err(HeartbeatError::failed)?;
        let confirmed = super::confirm_subscriptions(&client).await;
        confirmed.map_err(HeartbeatError::failed)?;
        Ok(Heartbeats { client, subscriber })
    }
}

/// Heartbeats of one partition; dropping it ends the subscription.
pub struct Heartbeats {
    client: Client,
    subscriber: Subscriber,
}

impl Heartbeats {
    /// The next heartbeat with its responder; `None` when the connection was closed. Malformed requests are
    /// counted and not answered.
    pub async fn next(&mut self) -> Option<(OwnerHeartbeat, Responder)> {
        loop {
            let message = self.subscriber.next().await?;
            let Some(reply) = message.reply else {
                continue;
            };
            if let Some(heartbeat) = decode(&message.payload) {
                let client = self.client.clone();
                return Some((heartbeat, Responder { client, reply }));
            }
            metrics::counter!("nixfleet_hostile_input_total", "kind" => "heartbeat").increment(1);
            tracing::warn!("a malformed heartbeat request was ignored");
        }
    }
}

fn decode(payload: &[u8]) -> Option<OwnerHeartbeat> {
    if payload.len() > REQUEST_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(payload).ok()
}

/// Answers one heartbeat.
pub struct Responder {
    client: Client,
    reply: Subject,
}

impl Responder {
    /// Sends the answer. Its delivery is not confirmed.
    ///
    /// # Errors
    /// [`HeartbeatError::Failed`] when it cannot be sent.
    pub async fn reply(self, reply: &OwnerReply) -> Result<(), HeartbeatError> {
        let payload = serde_json::to_vec(reply).map_err(HeartbeatError::failed)?;
        self.client
            .publish(self.reply, Bytes::from(payload))
            .await
            .map_err(HeartbeatError::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_requests_are_ignored() {
        assert!(decode(b"").is_none());
        assert!(decode(b"{}").is_none());
        assert!(decode(&vec![b'['; REQUEST_BYTES_MAX]).is_none());
        assert!(decode(&vec![b' '; REQUEST_BYTES_MAX + 1]).is_none());
    }
}
