//! The clock that stamps entries, compared with the broker's.
//!
//! The fold rejects an entry whose `receivedAt` is further from the broker's time than
//! [`Entry::CLOCK_SLACK`]. An event that was acknowledged and is rejected then is lost for its host, so a
//! process whose clock is off appends nothing: stamps are compared before a frame is sent, and again when it is
//! acknowledged.
//!
//! Source: docs/semantics.md, time.

#[cfg(feature = "shell")]
pub(crate) mod comparison;
#[cfg(feature = "shell")]
mod entry_clock;

use std::fmt;

use chrono::TimeDelta;
use nixfleet_proto::{Entry, Timestamp, mutation_testing};

/// Largest offset of a clock that stamps entries: half of what the fold accepts. The other half is for the
/// way into the log.
pub const CLOCK_OFFSET_MAX: TimeDelta = TimeDelta::seconds(30);

/// Oldest stamp of a frame that counts as stored when it is acknowledged; a second below what the fold
/// accepts, since the broker's time is known with that error.
const STORED_AGE_MAX: TimeDelta =
    TimeDelta::milliseconds(Entry::CLOCK_SLACK.num_milliseconds() - 1_000);

/// How far a clock is from the broker's; positive when it is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockOffset(pub TimeDelta);

impl ClockOffset {
    /// True when entries with this offset may be appended.
    pub fn is_accepted(self) -> bool {
        self.0.abs() <= CLOCK_OFFSET_MAX
    }
}

impl fmt::Display for ClockOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.num_milliseconds().unsigned_abs().div_ceil(1_000);
        let side = if self.0 < TimeDelta::zero() {
            "behind"
        } else {
            "ahead of"
        };
        write!(f, "{seconds} s {side} the broker's")
    }
}

/// The first and the last `receivedAt` of some entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamps {
    first: Timestamp,
    last: Timestamp,
}

impl Stamps {
    pub(crate) fn of(entry: &Entry) -> Self {
        let (first, last) = (entry.received_at, entry.received_at);
        Self { first, last }
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// Compares the stamps with the broker's time, before they are sent.
    pub(crate) fn check_before_sending(self, broker: Timestamp) -> Result<(), ClockOffset> {
        for stamp in [self.first, self.last] {
            let offset = ClockOffset(stamp - broker);
            if !offset.is_accepted() && !mutation_testing::is_active("bus-any-clock") {
                return Err(offset);
            }
        }
        Ok(())
    }

    /// True when what was acknowledged at this time of the broker was stored soon enough after its stamps. A
    /// process that was suspended on the way gets its acknowledgement long afterwards.
    pub(crate) fn were_stored_in_time(self, broker: Timestamp) -> bool {
        broker - self.first <= STORED_AGE_MAX || mutation_testing::is_active("bus-any-clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn stamps(first: i64, last: i64) -> Stamps {
        Stamps {
            first: at(first),
            last: at(last),
        }
    }

    #[test]
    fn stamps_are_sent_within_half_a_minute_of_the_broker() {
        for (first, last, expected) in [
            (1_000, 1_000, Ok(())),
            (970, 1_030, Ok(())),
            (969, 1_000, Err(-31)),
            (1_000, 1_031, Err(31)),
            (0, 1_000, Err(-1_000)),
        ] {
            let checked = stamps(first, last).check_before_sending(at(1_000));
            let expected = expected.map_err(|seconds| ClockOffset(TimeDelta::seconds(seconds)));
            assert_eq!(checked, expected, "{first} to {last}");
        }
    }

    #[test]
    fn a_late_acknowledgement_proves_nothing() {
        assert!(stamps(1_000, 1_030).were_stored_in_time(at(1_059)));
        assert!(!stamps(1_000, 1_030).were_stored_in_time(at(1_060)));
    }

    #[test]
    fn an_offset_names_its_side() {
        let text = |millis| ClockOffset(TimeDelta::milliseconds(millis)).to_string();
        assert_eq!(text(95_000), "95 s ahead of the broker's");
        assert_eq!(text(-30_001), "31 s behind the broker's");
    }
}
