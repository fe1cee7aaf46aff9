//! The phases of a run and their durations.

use std::time::Instant;

use nixfleet_harness::progress_printer::Printer;
use serde::Serialize;

use crate::number_format::format_count;

/// A phase of the run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// Name of the phase.
    pub name: String,
    /// Seconds from the start of the run to its beginning.
    pub begins: f64,
    /// Seconds from the start of the run to its end.
    pub ends: f64,
    /// Agents' events accepted during the phase.
    pub events: u64,
}

/// Start of a phase.
#[derive(Debug, Clone, Copy)]
pub struct PhaseStart {
    at: Instant,
    accepted: u64,
}

impl PhaseStart {
    /// Now, after so many accepted events.
    pub fn new(accepted: u64) -> Self {
        Self {
            at: Instant::now(),
            accepted,
        }
    }

    /// Events that were accepted before.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }
}

/// The finished phases.
pub struct Phases {
    list: Vec<Phase>,
    start: Instant,
    printer: Printer,
}

impl Phases {
    /// None yet.
    pub fn new(start: Instant, printer: Printer) -> Self {
        Self {
            list: Vec::new(),
            start,
            printer,
        }
    }

    /// Records and prints a phase that ends now.
    pub fn note(&mut self, name: String, phase_start: PhaseStart, accepted: u64) {
        let phase = Phase {
            name,
            begins: (phase_start.at - self.start).as_secs_f64(),
            ends: self.start.elapsed().as_secs_f64(),
            events: accepted.saturating_sub(phase_start.accepted),
        };
        let seconds = phase.ends - phase.begins;
        let events = format_count(phase.events);
        self.printer
            .timed_line(&format!("{}: {seconds:.1} s, {events} events", phase.name));
        self.list.push(phase);
    }

    /// All phases in order.
    pub fn into_list(self) -> Vec<Phase> {
        self.list
    }
}
