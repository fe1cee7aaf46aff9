//! When a planner polls and plans.

use std::time::Duration;

use nixfleet_planner::{Now, Pace};

use crate::addressing::Incarnation;
use crate::simulation::environment::Environment;

/// How often the source of releases is looked at.
pub const POLL_EVERY: Duration = Duration::from_secs(12);
/// As in production.
pub const PACE: Pace = Pace {
    debounce: Duration::from_millis(50),
    safety: Duration::from_secs(15),
};

/// The clocks of a process.
pub fn now(me: Incarnation, env: &Environment) -> Now {
    Now {
        monotonic: env.now.since_start(),
        wall: env.wall(me),
    }
}
