//! Durations in minutes, as in artifacts.

use std::fmt;

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Minutes, as a JSON number; fractions of a minute down to whole seconds are allowed.
///
/// Whole minutes are written as integers (`30`), others as fractions (`0.05` is three seconds), so
/// that a value survives a round trip unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minutes {
    seconds: u64,
}

/// Largest number of minutes: far beyond any use, small enough to add to every date.
const MINUTES_MAX: u64 = u32::MAX as u64;

impl Minutes {
    /// Zero.
    pub const ZERO: Self = Self { seconds: 0 };

    /// Whole minutes, capped at 4,294,967,295.
    pub fn from_minutes(minutes: u64) -> Self {
        Self {
            seconds: minutes.min(MINUTES_MAX) * 60,
        }
    }

    /// Whole seconds, with the same cap.
    pub fn from_seconds(seconds: u64) -> Self {
        Self {
            seconds: seconds.min(MINUTES_MAX * 60),
        }
    }

    /// The duration in seconds.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// The duration as a time difference.
    pub fn delta(self) -> TimeDelta {
        TimeDelta::seconds(i64::try_from(self.seconds).unwrap_or(i64::MAX / 1_000))
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds.is_multiple_of(60) {
            write!(f, "{} min", self.seconds / 60)
        } else {
            write!(f, "{} s", self.seconds)
        }
    }
}

impl Serialize for Minutes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.seconds.is_multiple_of(60) {
            serializer.serialize_u64(self.seconds / 60)
        } else {
            serializer.serialize_f64(self.seconds as f64 / 60.0)
        }
    }
}

impl<'de> Deserialize<'de> for Minutes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Number {
            Whole(u64),
            Fraction(f64),
        }
        let refused = || {
            serde::de::Error::custom(format!(
                "minutes must be a number from 0 to {MINUTES_MAX}, in steps of a second"
            ))
        };
        match Number::deserialize(deserializer).map_err(|_| refused())? {
            Number::Whole(minutes) if minutes <= MINUTES_MAX => Ok(Self::from_minutes(minutes)),
            Number::Fraction(minutes) if (0.0..=MINUTES_MAX as f64).contains(&minutes) => {
                let seconds = (minutes * 60.0).round();
                if (seconds / 60.0 - minutes).abs() > 1e-9 * minutes.max(1.0) {
                    return Err(refused());
                }
                Ok(Self::from_seconds(seconds as u64))
            }
            Number::Whole(_) | Number::Fraction(_) => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Minutes> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn whole_minutes_and_whole_seconds_survive_a_round_trip() {
        for (text, seconds) in [
            ("0", 0),
            ("30", 1800),
            ("0.05", 3),
            ("1.5", 90),
            ("4294967295", 257_698_037_700),
        ] {
            let minutes = parse(text).unwrap();
            assert_eq!(minutes.seconds(), seconds, "{text}");
            assert_eq!(serde_json::to_string(&minutes).unwrap(), text);
        }
        for seconds in 0..10_000 {
            let minutes = Minutes::from_seconds(seconds);
            assert_eq!(
                parse(&serde_json::to_string(&minutes).unwrap()),
                Some(minutes)
            );
        }
    }

    #[test]
    fn other_values_are_rejected() {
        for text in [
            "-1",
            "-0.5",
            "1e300",
            "4294967296",
            "0.0001",
            "\"30\"",
            "null",
            "true",
            "{}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
