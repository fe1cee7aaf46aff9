//! Intervals and clocks of a planner.

use std::time::Duration;

use nixfleet_planner::{ClockReading, PlanIntervals};

use crate::addressing::Incarnation;
use crate::simulation::environment::Environment;

/// How often a planner polls for releases.
pub const POLL_EVERY: Duration = Duration::from_secs(12);
/// As in production.
pub const INTERVALS: PlanIntervals = PlanIntervals {
    debounce: Duration::from_millis(50),
    longest: Duration::from_secs(15),
};

/// The clocks of a process.
pub fn now(me: Incarnation, env: &Environment) -> ClockReading {
    ClockReading {
        monotonic: env.now.since_start(),
        wall: env.wall(me),
    }
}
