//! Schedule of the plans.

use std::time::Duration;

use nixfleet_proto::Timestamp;

/// Shortest pause: a passed deadline without an effect must not cause a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Reading of two clocks: one for intervals, which is never set, and the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Time since a fixed moment of the process; never goes back.
    pub monotonic: Duration,
    /// Time of day; may be set forward and back.
    pub wall: Timestamp,
}

/// Intervals between plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanIntervals {
    /// Shortest interval after a change of the view: later changes join the same plan.
    pub debounce: Duration,
    /// Longest interval between two plans.
    pub longest: Duration,
}

/// Time of the next plan. Wake-ups carry no data: a plan reads the whole view.
#[derive(Debug, Clone)]
pub struct PlanSchedule {
    intervals: PlanIntervals,
    /// Earliest time of a plan after a change.
    earliest: Duration,
    due: Duration,
}

impl PlanSchedule {
    /// Creates a schedule whose first plan is due at once.
    pub fn new(intervals: PlanIntervals) -> Self {
        Self {
            intervals,
            earliest: Duration::ZERO,
            due: Duration::ZERO,
        }
    }

    /// Time of the next plan on the monotonic clock. Frequent changes do not delay it.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Records a change of the view.
    pub fn view_changed(&mut self, now: ClockReading) {
        self.due = self.due.min(now.monotonic.max(self.earliest));
    }

    /// Records another release.
    pub fn release_changed(&mut self, now: ClockReading) {
        self.due = now.monotonic;
    }

    /// Records a plan. `next_deadline` is the time at which the plan changes without an event;
    /// `is_capped` means that actions are left to plan now.
    pub fn plan_made(
        &mut self,
        now: ClockReading,
        next_deadline: Option<Timestamp>,
        is_capped: bool,
    ) {
        let pause = match next_deadline {
            _ if is_capped => Duration::ZERO,
            None => self.intervals.longest,
            Some(deadline) => {
                let until = (deadline - now.wall).to_std().unwrap_or_default();
                until.max(SHORTEST_PAUSE).min(self.intervals.longest)
            }
        };
        self.due = now.monotonic + pause;
        self.earliest = now.monotonic + self.intervals.debounce;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const INTERVALS: PlanIntervals = PlanIntervals {
        debounce: Duration::from_millis(20),
        longest: Duration::from_secs(15),
    };

    fn now(millis: u64) -> ClockReading {
        ClockReading {
            monotonic: Duration::from_millis(millis),
            wall: Timestamp::UNIX_EPOCH + TimeDelta::milliseconds(millis as i64),
        }
    }

    fn at(millis: i64) -> Option<Timestamp> {
        Some(Timestamp::UNIX_EPOCH + TimeDelta::milliseconds(millis))
    }

    /// Asserts when the next plan is due after one at 1 s.
    fn check(deadline: Option<Timestamp>, is_capped: bool, due_millis: u64) {
        let mut schedule = PlanSchedule::new(INTERVALS);
        schedule.plan_made(now(1_000), deadline, is_capped);
        assert_eq!(schedule.due(), Duration::from_millis(due_millis));
    }

    #[test]
    fn a_plan_is_due_at_its_deadline_or_the_longest_interval() {
        check(None, false, 16_000);
        check(at(1_700), false, 1_700);
        check(at(90_000), false, 16_000);
        check(at(400), false, 1_001);
        check(None, true, 1_000);
    }

    #[test]
    fn changes_are_debounced_and_never_delay_a_plan() {
        let mut schedule = PlanSchedule::new(INTERVALS);
        schedule.plan_made(now(1_000), None, false);
        schedule.view_changed(now(1_005));
        schedule.view_changed(now(1_015));
        assert_eq!(schedule.due(), Duration::from_millis(1_020));
        schedule.release_changed(now(1_016));
        assert_eq!(schedule.due(), Duration::from_millis(1_016));
    }

    #[test]
    fn a_change_after_a_quiet_time_is_planned_at_once() {
        let mut schedule = PlanSchedule::new(INTERVALS);
        schedule.plan_made(now(1_000), None, false);
        schedule.view_changed(now(2_000));
        assert_eq!(schedule.due(), Duration::from_millis(2_000));
    }

    #[test]
    fn a_clock_that_was_set_back_delays_a_plan_by_the_longest_interval_at_most() {
        let mut schedule = PlanSchedule::new(INTERVALS);
        let set_back = ClockReading {
            wall: Timestamp::UNIX_EPOCH,
            ..now(7_200_000)
        };
        schedule.plan_made(set_back, at(7_200_500), false);
        assert_eq!(schedule.due(), Duration::from_secs(7_215));
    }
}
