//! Clock access and formatting of times.

use chrono::{SubsecRound, Utc};
use nixfleet_proto::Timestamp;

/// Now, in whole seconds.
pub fn now() -> Timestamp {
    Utc::now().trunc_subsecs(0)
}

/// A time in the format of tables.
pub fn short(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time in the format of tables, or `-`.
pub fn short_or_dash(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), short)
}
