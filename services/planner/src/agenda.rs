//! When the next plan is due.

use std::time::Duration;

use nixfleet_proto::Timestamp;

/// A deadline that has passed and changed nothing must not spin.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// The time, told twice: pauses are counted on a clock that is never set, plans are made for the time
/// of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since any moment of this process's own; never goes back.
    pub monotonic: Duration,
    /// Time of day; may be set, forward and back.
    pub wall: Timestamp,
}

/// How eagerly plans are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// News wait until the last plan is this old: what comes meanwhile joins them.
    pub debounce: Duration,
    /// Longest time between two plans.
    pub safety: Duration,
}

/// When the next plan is due. Wake-ups carry no data: a plan looks at the whole level of the view.
#[derive(Debug, Clone)]
pub struct Agenda {
    pace: Pace,
    /// When news may cause a plan again.
    open: Duration,
    due: Duration,
}

impl Agenda {
    /// The first plan is due at once.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            open: Duration::ZERO,
            due: Duration::ZERO,
        }
    }

    /// The moment of the next plan, on the monotonic clock. Steady news cannot put it off.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// The view changed.
    pub fn changed(&mut self, now: Now) {
        self.due = self.due.min(now.monotonic.max(self.open));
    }

    /// There is another release.
    pub fn released(&mut self, now: Now) {
        self.due = now.monotonic;
    }

    /// A plan was made; `next_deadline` changes it by time alone, and `is_capped` means that there is
    /// more to plan right now.
    pub fn planned(&mut self, now: Now, next_deadline: Option<Timestamp>, is_capped: bool) {
        let pause = match next_deadline {
            _ if is_capped => Duration::ZERO,
            None => self.pace.safety,
            Some(deadline) => {
                let until = (deadline - now.wall).to_std().unwrap_or_default();
                until.max(SHORTEST_PAUSE).min(self.pace.safety)
            }
        };
        self.due = now.monotonic + pause;
        self.open = now.monotonic + self.pace.debounce;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const PACE: Pace = Pace {
        debounce: Duration::from_millis(20),
        safety: Duration::from_secs(15),
    };

    fn now(millis: u64) -> Now {
        Now {
            monotonic: Duration::from_millis(millis),
            wall: Timestamp::UNIX_EPOCH + TimeDelta::milliseconds(millis as i64),
        }
    }

    fn at(millis: i64) -> Option<Timestamp> {
        Some(Timestamp::UNIX_EPOCH + TimeDelta::milliseconds(millis))
    }

    /// Due after a plan at 1 s.
    fn check(deadline: Option<Timestamp>, is_capped: bool, due_millis: u64) {
        let mut agenda = Agenda::new(PACE);
        agenda.planned(now(1_000), deadline, is_capped);
        assert_eq!(agenda.due(), Duration::from_millis(due_millis));
    }

    #[test]
    fn a_plan_is_due_at_its_deadline_and_at_the_safety_tick_at_last() {
        check(None, false, 16_000);
        check(at(1_700), false, 1_700);
        check(at(90_000), false, 16_000);
        check(at(400), false, 1_001);
        check(None, true, 1_000);
    }

    #[test]
    fn news_are_debounced_and_never_put_a_plan_off() {
        let mut agenda = Agenda::new(PACE);
        agenda.planned(now(1_000), None, false);
        agenda.changed(now(1_005));
        agenda.changed(now(1_015));
        assert_eq!(agenda.due(), Duration::from_millis(1_020));
        agenda.released(now(1_016));
        assert_eq!(agenda.due(), Duration::from_millis(1_016));
    }

    #[test]
    fn news_after_a_quiet_time_are_planned_at_once() {
        let mut agenda = Agenda::new(PACE);
        agenda.planned(now(1_000), None, false);
        agenda.changed(now(2_000));
        assert_eq!(agenda.due(), Duration::from_millis(2_000));
    }

    #[test]
    fn a_clock_that_was_set_back_delays_a_plan_by_the_safety_tick_at_most() {
        let mut agenda = Agenda::new(PACE);
        let set_back = Now {
            wall: Timestamp::UNIX_EPOCH,
            ..now(7_200_000)
        };
        agenda.planned(set_back, at(7_200_500), false);
        assert_eq!(agenda.due(), Duration::from_secs(7_215));
    }
}
