//! The parts of a run and how long they take.

use std::time::Instant;

use nixfleet_harness::say::Say;
use serde::Serialize;

use crate::units::count;

/// A part of the run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// Seconds from the start of the run to its beginning.
    pub begins: f64,
    /// Seconds from the start of the run to its end.
    pub ends: f64,
    /// Agents' events that were accepted meanwhile.
    pub events: u64,
}

/// The beginning of a part.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    at: Instant,
    accepted: u64,
}

impl Mark {
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

/// The parts so far.
pub struct Phases {
    list: Vec<Phase>,
    start: Instant,
    say: Say,
}

impl Phases {
    /// None yet.
    pub fn new(start: Instant, say: Say) -> Self {
        Self {
            list: Vec::new(),
            start,
            say,
        }
    }

    /// Notes a part that ends now, after so many accepted events, and says so.
    pub fn note(&mut self, name: String, mark: Mark, accepted: u64) {
        let phase = Phase {
            name,
            begins: (mark.at - self.start).as_secs_f64(),
            ends: self.start.elapsed().as_secs_f64(),
            events: accepted.saturating_sub(mark.accepted),
        };
        let seconds = phase.ends - phase.begins;
        let events = count(phase.events);
        self.say
            .now(&format!("{}: {seconds:.1} s, {events} events", phase.name));
        self.list.push(phase);
    }

    /// All of them, in order.
    pub fn into_list(self) -> Vec<Phase> {
        self.list
    }
}
