//! Messages that no stream stores: heartbeats and last-seen times of hosts.

pub(crate) mod heartbeat;
pub(crate) mod liveness;

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures::StreamExt as _;

/// Longest wait for the server to process a subscription.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until the server has processed the subscriptions that this client sent before. `Client::flush` ends
/// when the bytes have left the process, so that a request over another connection could find no responder.
async fn confirm_subscriptions(client: &Client) -> Result<(), String> {
    let inbox = client.new_inbox();
    let confirmed = async {
        let mut echo = client.subscribe(inbox.clone()).await.map_err(text)?;
        client.publish(inbox, Bytes::new()).await.map_err(text)?;
        let echoed = echo.next().await;
        echoed
            .map(drop)
            .ok_or_else(|| "the connection was closed".to_owned())
    };
    tokio::time::timeout(CONFIRMATION_TIMEOUT, confirmed)
        .await
        .map_err(|_| "the server did not confirm the subscription in time".to_owned())?
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
