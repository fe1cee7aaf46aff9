//! Runs one seed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::Time;
use crate::engine::trace::{Output, Trace};
use crate::invariant_monitor::{LogCounts, Violation};
use crate::scenario::{Reduction, Scenario};
use crate::simulation::{RunResult, Simulation};

/// Runs a seed with a reduction. A panic counts as a violation of the invariant `panics`.
pub fn run(seed: u64, reduction: &Reduction, output: Output) -> RunResult {
    let scenario = Scenario::of(seed, reduction);
    let run = || Simulation::new(scenario, Trace::new(output)).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| RunResult {
        violation: Some(Violation {
            invariant: "panics",
            message: panic_message(&*payload),
        }),
        ended_at: Time::ZERO,
        trace_hash: 0,
        trace_lines: 0,
        events: 0,
        entries: 0,
        acknowledged: 0,
        counts: LogCounts::default(),
        lines: Vec::new(),
    })
}

/// The message of a panic.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| {
        payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
    });
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The command that repeats a run.
pub fn command(seed: u64, reduction: &Reduction) -> String {
    let mut command = format!("cargo xtask sim --seed {seed}");
    for (option, value) in reduction.options() {
        command.push_str(&format!(" --{option}"));
        if !value.is_empty() {
            command.push_str(&format!(" {value}"));
        }
    }
    command.push_str(" --trace");
    command
}
