//! The clock of the gateways. Entries and heartbeats get the time of the bus, which is compared with the broker's.

use nixfleet_proto::Timestamp;

/// The time now.
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
