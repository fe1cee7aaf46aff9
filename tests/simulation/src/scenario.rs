//! What a seed determines: the sizes of a run, its fleet, and its faults.

mod fault_rates;
pub mod fault_schedule;
mod log_limits;
mod shape;

pub use fault_rates::FaultRates;
pub use fault_schedule::{
    CheckpointLoss, CrashPoint, Fault, FaultKind, RowLoss, StalledConsumer, TailLoss,
};
pub use log_limits::LogLimits;
pub use shape::{BudgetShape, Caps, ChannelShape, EdgeShape, HostShape, Shape, TAGS, WaveShape};

use std::rc::Rc;

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Sizes and fleet.
    pub shape: Rc<Shape>,
    /// What goes wrong all the time.
    pub fault_rates: FaultRates,
    /// What goes wrong at certain times.
    pub faults: Vec<Fault>,
}

/// What is left of a seed's scenario, for shrinking and for repeating what was shrunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Upper bounds of the shape.
    pub caps: Caps,
    /// Faults that are kept, by their place in the seed's schedule; absent: all.
    pub faults: Option<Vec<usize>>,
    /// True: nothing goes wrong by itself.
    pub quiet: bool,
}

impl Reduction {
    /// The options of the command line that say the same.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let whole = Caps::default();
        let mut options = Vec::new();
        let caps = [
            ("hosts", self.caps.hosts, whole.hosts),
            ("instances", self.caps.instances, whole.instances),
            ("releases", self.caps.releases, whole.releases),
        ];
        for (name, value, default) in caps {
            if value != default {
                options.push((name, value.to_string()));
            }
        }
        if let Some(faults) = &self.faults {
            let numbers: Vec<_> = faults.iter().map(usize::to_string).collect();
            let list = if numbers.is_empty() {
                "none".to_owned()
            } else {
                numbers.join(",")
            };
            options.push(("faults", list));
        }
        if self.quiet {
            options.push(("quiet", String::new()));
        }
        options
    }
}

impl Scenario {
    /// True when broker and database come back empty at some time.
    pub fn loses_both(&self) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| fault.kind == FaultKind::LoseBrokerAndDatabase)
    }

    /// The scenario of a seed.
    pub fn of(seed: u64, reduction: &Reduction) -> Self {
        let whole = Shape::of(seed, Caps::default());
        let all = fault_schedule::schedule(seed, &whole);
        let faults = match &reduction.faults {
            None => all,
            Some(kept) => {
                let kept = kept.iter().filter_map(|index| all.get(*index));
                kept.cloned().collect()
            }
        };
        let fault_rates = FaultRates::of(seed);
        let quiet = FaultRates {
            retry_order: fault_rates.retry_order,
            ..FaultRates::NONE
        };
        Self {
            seed,
            shape: Rc::new(Shape::of(seed, reduction.caps)),
            fault_rates: if reduction.quiet { quiet } else { fault_rates },
            faults,
        }
    }
}
