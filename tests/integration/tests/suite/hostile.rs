//! Clients that want to do harm, against the gateway over real TLS: each is bounded, nothing changes,
//! and the others do not notice.

mod bombs;
mod certificates;
mod connections;
mod flood;
mod polls;
mod raw;
mod replay;
mod secrets;
mod slow;
mod smuggling;

use super::gateways::gateway::{Client, Gateway, event};

pub(super) const EVENTS: &str = "/v1/agent/events";

/// Proves that the gateway serves an honest host at once.
pub(super) async fn serves(gateway: &Gateway, honest: &Client, seq: u64) {
    let started = std::time::Instant::now();
    let answer = honest.post(EVENTS, &event("lab-1", seq)).await;
    assert_eq!(answer.status, 204, "{}", gateway.process.tail());
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
