//! Virtual time: microseconds since the run began.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_proto::Timestamp;

/// Wall-clock second at which every run begins, 2026-05-01T10:00:00Z.
const EPOCH_SECONDS: i64 = 1_777_629_600;

/// A moment of the run, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// So many seconds after the beginning.
    pub fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// So many milliseconds after the beginning.
    pub fn millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// So many seconds later.
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0 + seconds * 1_000_000)
    }

    /// Microseconds since the beginning.
    pub fn micros(self) -> u64 {
        self.0
    }

    /// What a clock shows that is `skew_ms` milliseconds ahead.
    pub fn wall(self, skew_ms: i64) -> Timestamp {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        let start = Timestamp::from_timestamp(EPOCH_SECONDS, 0).unwrap_or(Timestamp::UNIX_EPOCH);
        // Whole milliseconds: what every store and message keeps.
        start + TimeDelta::milliseconds(micros / 1_000 + skew_ms)
    }

    /// The first moment at which a clock that is `skew_ms` ahead shows at least `at`.
    pub fn of_wall(at: Timestamp, skew_ms: i64) -> Self {
        let start = Timestamp::from_timestamp(EPOCH_SECONDS, 0).unwrap_or(Timestamp::UNIX_EPOCH);
        let since = at - start - TimeDelta::milliseconds(skew_ms);
        let micros = since.num_microseconds().unwrap_or(i64::MAX / 2);
        let micros = u64::try_from(micros).unwrap_or(0);
        Self(micros.div_ceil(1_000) * 1_000)
    }

    /// Time since the beginning, as monotonic clocks count it.
    pub fn since_start(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, other: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_clock_reaches_a_moment_when_it_shows_it() {
        for skew_ms in [-5_000, 0, 1, 3_000] {
            let at = Time::millis(20_001).wall(0);
            let reached = Time::of_wall(at, skew_ms);
            assert!(reached.wall(skew_ms) >= at);
            let before = Time(reached.micros() - 1_000);
            assert!(before.wall(skew_ms) < at);
        }
    }
}
