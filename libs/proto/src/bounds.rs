//! Bounds of everything that a peer sends: requests of agents, and replies to them.
//!
//! Source: docs/wire-protocol.md, limits.

use std::ops::RangeInclusive;

use chrono::Datelike as _;

use crate::Timestamp;

/// Longest name, closure or identifier, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest reason that is written for people, in bytes.
pub const REASON_BYTES_MAX: usize = 8 * 1024;
/// Largest integer that every reader holds, sequences included: a signed 64-bit column.
pub const INTEGER_MAX: u64 = i64::MAX as u64;
/// Open records in one reply to a heartbeat; the owner sends the newest ones.
pub const BOOTSTRAP_ROLLOUTS_MAX: usize = 256;

/// Years that a clock may claim; beyond them it is broken, and some databases are too.
const YEARS: RangeInclusive<i32> = 2000..=2199;

/// A value that the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct OutOfBounds {
    /// The field, as on the wire.
    pub field: String,
    /// What is wrong with it.
    pub fault: String,
}

impl OutOfBounds {
    pub(crate) fn new(field: impl Into<String>, fault: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            fault: fault.into(),
        }
    }
}

/// True for a time within the years 2000 to 2199.
pub fn is_plausible(at: Timestamp) -> bool {
    YEARS.contains(&at.year())
}
