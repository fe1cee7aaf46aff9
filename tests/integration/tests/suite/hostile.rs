//! Clients that want to do harm, against the gateway over real TLS: each is bounded, nothing changes,
//! and the others do not notice.

mod connection_limits;
mod event_flood;
mod event_replay;
mod idle_polls;
mod json_bombs;
mod log_flood;
mod misused_certificates;
mod raw_connection;
mod request_smuggling;
mod secret_leaks;
mod slow_clients;

use super::gateways::gateway_process::{Client, Gateway, event};

pub(super) const EVENTS: &str = "/v1/agent/events";

/// Proves that the gateway serves an honest host at once.
pub(super) async fn serves(gateway: &Gateway, honest: &Client, seq: u64) {
    let started = std::time::Instant::now();
    let answer = honest.post(EVENTS, &event("lab-1", seq)).await;
    assert_eq!(answer.status, 204, "{}", gateway.process.tail());
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
