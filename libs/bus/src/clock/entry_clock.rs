//! The clock of this process and its distance from the broker's, which every answer about a stream tells.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{TimeDelta, Utc};
use nixfleet_proto::Timestamp;
use tokio::time::Instant;

use super::ClockOffset;

/// The clock that stamps entries. The broker's time goes on with the monotonic clock between two measurements, so a
/// clock that is set is noticed with the next stamp.
#[derive(Debug)]
pub(super) struct EntryClock {
    origin: Instant,
    /// The broker's time at `origin` by input log, as microseconds since 1970.
    measured: Mutex<BTreeMap<String, i64>>,
    /// The smallest and the largest of these; `i64::MIN` before the first measurement.
    extremes: [AtomicI64; 2],
    test: Option<TestOffset>,
}

/// A deliberately wrong clock.
#[derive(Debug)]
struct TestOffset {
    file: PathBuf,
    milliseconds: AtomicI64,
}

impl EntryClock {
    pub(super) fn new(test_file: Option<PathBuf>) -> Self {
        let clock = Self {
            origin: Instant::now(),
            measured: Mutex::default(),
            extremes: [AtomicI64::new(i64::MIN), AtomicI64::new(i64::MIN)],
            test: test_file.map(|file| TestOffset {
                file,
                milliseconds: AtomicI64::new(0),
            }),
        };
        clock.read_test_file();
        clock
    }

    /// The time of this process.
    pub(super) fn now(&self) -> Timestamp {
        let now = Utc::now();
        match &self.test {
            Some(test) => now + TimeDelta::milliseconds(test.milliseconds.load(Ordering::Relaxed)),
            None => now,
        }
    }

    /// The broker's time now, according to the leader of an input log.
    pub(super) fn broker_now(&self, stream: &str) -> Option<Timestamp> {
        let at_origin = self.measured().get(stream).copied()?;
        Timestamp::from_timestamp_micros(
            at_origin.saturating_add(self.elapsed_micros(Instant::now())),
        )
    }

    /// The largest offset from the leader of any input log; `None` before the first measurement.
    pub(super) fn offset(&self) -> Option<ClockOffset> {
        let [smallest, largest] = self
            .extremes
            .each_ref()
            .map(|at| at.load(Ordering::Relaxed));
        if smallest == i64::MIN {
            return None;
        }
        let now = self.now().timestamp_micros() - self.elapsed_micros(Instant::now());
        let [ahead, behind] = [smallest, largest].map(|at_origin| now.saturating_sub(at_origin));
        let furthest = if ahead.unsigned_abs() >= behind.unsigned_abs() {
            ahead
        } else {
            behind
        };
        Some(ClockOffset(TimeDelta::microseconds(furthest)))
    }

    /// Takes an answer of the broker with its time.
    pub(super) fn answered(
        &self,
        stream: &str,
        (sent, received): (Instant, Instant),
        broker: Timestamp,
    ) {
        let middle = sent + (received - sent) / 2;
        let at_origin = broker
            .timestamp_micros()
            .saturating_sub(self.elapsed_micros(middle));
        let mut measured = self.measured();
        measured.insert(stream.to_owned(), at_origin);
        let (smallest, largest) = (measured.values().min(), measured.values().max());
        for (extreme, value) in self.extremes.iter().zip([smallest, largest]) {
            extreme.store(value.copied().unwrap_or(i64::MIN), Ordering::Relaxed);
        }
    }

    fn elapsed_micros(&self, at: Instant) -> i64 {
        let elapsed = at.saturating_duration_since(self.origin);
        i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
    }

    fn measured(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        // Every change is one insert, so that a panic elsewhere leaves no partial change.
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when a test sets this clock.
    pub(super) fn is_test(&self) -> bool {
        self.test.is_some()
    }

    /// Takes the offset of a test; without the file, or with anything else in it, there is none.
    pub(super) fn read_test_file(&self) {
        if let Some(test) = &self.test {
            let text = std::fs::read_to_string(&test.file).unwrap_or_default();
            let milliseconds = text.trim().parse().unwrap_or(0);
            test.milliseconds.store(milliseconds, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_offset_is_that_of_the_furthest_leader() {
        let clock = EntryClock::new(None);
        assert_eq!(clock.offset(), None);
        assert_eq!(clock.broker_now("A"), None);
        let seconds = |clock: &EntryClock| clock.offset().map(|ClockOffset(at)| at.num_seconds());
        let now = Instant::now();
        let half = TimeDelta::milliseconds(500);
        clock.answered("A", (now, now), Utc::now() - TimeDelta::seconds(4) - half);
        assert_eq!(seconds(&clock), Some(4));
        clock.answered("B", (now, now), Utc::now() + TimeDelta::seconds(90) + half);
        assert_eq!(seconds(&clock), Some(-90));
        clock.answered("B", (now, now), Utc::now());
        assert_eq!(seconds(&clock), Some(4));
    }

    #[tokio::test]
    async fn a_test_sets_the_clock_by_a_file() {
        let file = std::env::temp_dir().join(format!("nixfleet-clock-{}", std::process::id()));
        std::fs::write(&file, "3600000\n").unwrap();
        let clock = EntryClock::new(Some(file.clone()));
        assert!(clock.now() - Utc::now() > TimeDelta::minutes(59));
        std::fs::remove_file(&file).unwrap();
        clock.read_test_file();
        assert!(clock.now() - Utc::now() < TimeDelta::minutes(1));
    }
}
