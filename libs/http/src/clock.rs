//! The clock of the gateways.

use nixfleet_proto::Timestamp;

/// The time now: the one place where entries get theirs.
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
