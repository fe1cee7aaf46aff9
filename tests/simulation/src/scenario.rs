//! What a seed stands for: the shape of a run and what goes wrong in it.

pub mod fault;
mod log_limits;
mod noise;
mod shape;

pub use fault::{CheckpointLoss, Fault, FaultKind, Holding, RowLoss, Tails};
pub use log_limits::LogLimits;
pub use noise::Noise;
pub use shape::{BudgetShape, Caps, ChannelShape, HostShape, Shape, TAGS};

use std::rc::Rc;

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Sizes and fleet.
    pub shape: Rc<Shape>,
    /// What goes wrong all the time.
    pub noise: Noise,
    /// What goes wrong at certain times.
    pub faults: Vec<Fault>,
}

/// What is left of a seed's scenario, for shrinking and for repeating what was shrunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// Upper bounds of the shape.
    pub caps: Caps,
    /// Faults that are kept, by their place in the seed's schedule; absent: all.
    pub faults: Option<Vec<usize>>,
    /// True: nothing goes wrong by itself.
    pub quiet: bool,
}

impl Cut {
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
        faults.any(|fault| fault.kind == FaultKind::BothLost)
    }

    /// The scenario of a seed.
    pub fn of(seed: u64, cut: &Cut) -> Self {
        let whole = Shape::of(seed, Caps::default());
        let all = fault::schedule(seed, &whole);
        let faults = match &cut.faults {
            None => all,
            Some(kept) => {
                let kept = kept.iter().filter_map(|index| all.get(*index));
                kept.cloned().collect()
            }
        };
        let noise = Noise::of(seed);
        let quiet = Noise {
            retried: noise.retried,
            ..Noise::NONE
        };
        Self {
            seed,
            shape: Rc::new(Shape::of(seed, cut.caps)),
            noise: if cut.quiet { quiet } else { noise },
            faults,
        }
    }
}
