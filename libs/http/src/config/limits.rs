//! Bounds of what clients may ask for, each with its reason.

use nixfleet_service::Faults;
use serde::{Deserialize, Serialize};

/// Bounds of what clients may ask for, all together and each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Open connections. One long-poll per host plus some for people; about 50 KiB each.
    pub connections: usize,
    /// Open connections without a usable client certificate: they get a 401 that says so and must
    /// not take the room of those that have one.
    pub connections_anonymous: usize,
    /// Open connections of one client: an agent has one, and some more when its network flaps and
    /// the old ones are not known to be dead yet.
    pub connections_per_client: usize,
    /// Requests worked on at once, waiting dispatch requests not counted. Enough to fill frames,
    /// few enough to answer "busy" before the deadline of the clients.
    pub requests_in_flight: usize,
    /// The same of one client: an agent sends for one rollout after the other and fetches little
    /// beside. One client must not fill the room of all with bodies it sends slowly.
    pub requests_per_client: usize,
    /// Requests that wait for news, held open at once; about 10 KiB each.
    pub polls: usize,
    /// The same of one client: one, and those whose connection is not known to be dead yet.
    pub polls_per_client: usize,
    /// Requests on one HTTP/2 connection at once: an agent has three.
    pub streams_per_connection: u32,
    /// What an HTTP/2 peer may send ahead of what is read, per connection: memory it can make the
    /// gateway hold. One event body fits.
    pub http2_window_bytes: u32,
    /// Size of a request header.
    pub header_bytes: u32,
    /// Size of a body other than a release: an entry must fit into one frame with room to spare, and a
    /// frame has at most 512 KiB.
    pub body_bytes: usize,
    /// Bodies held in memory at once, all together.
    pub bodies_in_flight_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_anonymous: 256,
            connections_per_client: 16,
            requests_in_flight: 4_096,
            requests_per_client: 32,
            polls: 20_000,
            polls_per_client: 16,
            streams_per_connection: 64,
            http2_window_bytes: 256 * 1024,
            header_bytes: 16 * 1024,
            body_bytes: 256 * 1024,
            bodies_in_flight_bytes: 256 * 1024 * 1024,
        }
    }
}

impl LimitsConfig {
    /// Adds everything that is wrong with the values.
    pub fn validate(&self, faults: &mut Faults) {
        // The semaphores behind them hold no more.
        for (count, key) in [
            (self.connections, "limits.connections"),
            (self.connections_anonymous, "limits.connections_anonymous"),
            (self.connections_per_client, "limits.connections_per_client"),
            (self.requests_in_flight, "limits.requests_in_flight"),
            (self.requests_per_client, "limits.requests_per_client"),
            (self.polls, "limits.polls"),
            (self.polls_per_client, "limits.polls_per_client"),
        ] {
            faults.require_range(key, count, 1..=1_000_000);
        }
        let streams = self.streams_per_connection;
        faults.require_range("limits.streams_per_connection", streams, 1..=1_024);
        // HTTP/2 begins with no less.
        let window = self.http2_window_bytes;
        faults.require_range("limits.http2_window_bytes", window, 65_535..=16_777_216);
        // The HTTP library takes no less.
        faults.require_range("limits.header_bytes", self.header_bytes, 8_192..=1_048_576);
        // Half a frame.
        faults.require_range("limits.body_bytes", self.body_bytes, 1_024..=262_144);
        let bodies = self.bodies_in_flight_bytes;
        let key = "limits.bodies_in_flight_bytes";
        faults.require_range(key, bodies, self.body_bytes..=64 * 1024 * 1024 * 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_checked() {
        let limits = LimitsConfig {
            connections: 0,
            connections_anonymous: 0,
            connections_per_client: 0,
            requests_in_flight: 0,
            requests_per_client: 0,
            polls: 0,
            polls_per_client: 0,
            streams_per_connection: 0,
            http2_window_bytes: 1,
            header_bytes: 1,
            body_bytes: 600_000,
            bodies_in_flight_bytes: 1,
        };
        let mut faults = Faults::default();
        limits.validate(&mut faults);
        assert_eq!(faults.iter().count(), 12, "{faults}");
    }
}
