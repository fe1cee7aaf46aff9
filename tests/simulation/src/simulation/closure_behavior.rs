//! How a host behaves on a closure. The seed determines it, so that every call gives the same result.

use std::time::Duration;

use nixfleet_proto::{ClosureHash, Hostname};

use crate::engine::Rng;

/// Part of a closure's name that marks a bad build.
pub const BAD: &str = "bad";
/// Part of a closure's name that marks one on which nothing goes wrong.
pub const FAULT_FREE: &str = "calm";

/// How a switch of a host to a closure ends, and how long it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosureBehavior {
    /// Time of a switch or a rollback.
    pub switch_time: Duration,
    /// How it ends.
    pub result: ActivationResult,
}

/// How a switch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivationResult {
    /// The closure runs and its probes pass.
    Healthy,
    /// The switch fails.
    SwitchFails,
    /// The closure is staged and runs after a reboot, this much later.
    Deferred(Duration),
    /// The closure runs and an enforced probe fails on it, for this long or for ever.
    ProbeFails(Option<Duration>),
}

impl ClosureBehavior {
    /// The behavior of a host on a closure.
    pub fn of(seed: u64, host: &Hostname, closure: &ClosureHash) -> Self {
        let mut rng = Rng::new(seed, &format!("fate/{host}/{closure}"));
        let switch_time = Duration::from_millis(rng.range(300, 6_000));
        let roll = rng.below(100);
        let later = |rng: &mut Rng| Duration::from_millis(rng.range(2_000, 60_000));
        let result = if closure.as_str().contains(FAULT_FREE) {
            ActivationResult::Healthy
        } else if closure.as_str().contains(BAD) {
            match roll {
                0..=24 => ActivationResult::SwitchFails,
                25..=59 => ActivationResult::ProbeFails(None),
                60..=74 => ActivationResult::ProbeFails(Some(later(&mut rng))),
                75..=79 => ActivationResult::Deferred(later(&mut rng)),
                _ => ActivationResult::Healthy,
            }
        } else {
            match roll {
                0..=1 => ActivationResult::SwitchFails,
                2..=7 => ActivationResult::ProbeFails(Some(later(&mut rng))),
                8..=15 => ActivationResult::Deferred(later(&mut rng)),
                _ => ActivationResult::Healthy,
            }
        };
        Self {
            switch_time,
            result,
        }
    }
}
