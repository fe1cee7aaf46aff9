//! What happens to a host on a closure: drawn once from the seed, whenever it is asked for.

use std::time::Duration;

use nixfleet_proto::{ClosureHash, Hostname};

use crate::engine::Rng;

/// Part of a closure's name that marks a bad build.
pub const BAD: &str = "bad";
/// Part of a closure's name that marks one on which nothing goes wrong.
pub const CALM: &str = "calm";

/// How switching a host to a closure goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Time of a switch or a rollback.
    pub takes: Duration,
    /// How it ends.
    pub ends: Ending,
}

/// How a switch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The closure runs and its probes pass.
    Good,
    /// The switch fails.
    Fails,
    /// The closure is staged and runs after a reboot, this much later.
    Deferred(Duration),
    /// The closure runs and an enforced probe fails on it, for this long or for ever.
    Sick(Option<Duration>),
}

impl Fate {
    /// The fate of a host on a closure.
    pub fn of(seed: u64, host: &Hostname, closure: &ClosureHash) -> Self {
        let mut rng = Rng::new(seed, &format!("fate/{host}/{closure}"));
        let takes = Duration::from_millis(rng.range(300, 6_000));
        let roll = rng.below(100);
        let later = |rng: &mut Rng| Duration::from_millis(rng.range(2_000, 60_000));
        let ends = if closure.as_str().contains(CALM) {
            Ending::Good
        } else if closure.as_str().contains(BAD) {
            match roll {
                0..=24 => Ending::Fails,
                25..=59 => Ending::Sick(None),
                60..=74 => Ending::Sick(Some(later(&mut rng))),
                75..=79 => Ending::Deferred(later(&mut rng)),
                _ => Ending::Good,
            }
        } else {
            match roll {
                0..=1 => Ending::Fails,
                2..=7 => Ending::Sick(Some(later(&mut rng))),
                8..=15 => Ending::Deferred(later(&mut rng)),
                _ => Ending::Good,
            }
        };
        Self { takes, ends }
    }
}
