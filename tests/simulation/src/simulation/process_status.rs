//! The state of a process that the simulation controls: whether it runs, its clock, its connections.

use std::collections::BTreeMap;

use crate::addressing::{Incarnation, Service};
use crate::engine::Time;
use crate::scenario::CrashPoint;
use crate::simulated_servers::Connection;

/// A crash of a process at one of its next occasions.
#[derive(Debug, Clone, Copy)]
pub struct PlannedCrash {
    /// The occasion.
    pub point: CrashPoint,
    /// How many of these occasions the process survives first.
    pub skipped: u32,
}

/// State of a process that the simulation controls.
#[derive(Debug)]
pub struct ProcessStatus {
    /// Its service.
    pub service: Service,
    /// Its number within the service.
    pub number: usize,
    /// True while it runs.
    pub up: bool,
    /// Counts its starts.
    pub life: u32,
    /// Until then it is suspended: nothing reaches it, and it does nothing.
    pub frozen_until: Time,
    /// How far its wall clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// Where it dies next.
    pub planned_crash: Option<PlannedCrash>,
    /// Until when it works as if it held every lease.
    pub ignores_leases_until: Time,
    cut_until: BTreeMap<Connection, Time>,
    lag_until: BTreeMap<Connection, Time>,
    calls: u64,
}

impl ProcessStatus {
    /// A process that was never started.
    pub fn new(service: Service, number: usize) -> Self {
        Self {
            service,
            number,
            up: false,
            life: 0,
            frozen_until: Time::ZERO,
            skew_ms: 0,
            planned_crash: None,
            ignores_leases_until: Time::ZERO,
            cut_until: BTreeMap::new(),
            lag_until: BTreeMap::new(),
            calls: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("{}-{}", self.service.name(), self.number)
    }

    /// The process with its current life.
    pub fn incarnation(&self, id: usize) -> Incarnation {
        Incarnation {
            id,
            life: self.life,
        }
    }

    /// A number for the next call.
    pub fn next_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    /// Cuts a connection.
    pub fn cut(&mut self, server: Connection, until: Time) {
        let cut = self.cut_until.entry(server).or_default();
        *cut = until.max(*cut);
    }

    /// True while a connection is cut.
    pub fn is_cut(&self, server: Connection, now: Time) -> bool {
        self.cut_until
            .get(&server)
            .is_some_and(|until| now < *until)
    }

    /// Slows a connection down.
    pub fn lag(&mut self, server: Connection, until: Time) {
        self.lag_until.insert(server, until);
    }

    /// True while messages on a connection take seconds.
    pub fn lags(&self, server: Connection, now: Time) -> bool {
        self.lag_until
            .get(&server)
            .is_some_and(|until| now < *until)
    }

    /// Ends all faults of the process.
    pub fn heal(&mut self) {
        self.cut_until.clear();
        self.lag_until.clear();
        self.planned_crash = None;
        self.ignores_leases_until = Time::ZERO;
        self.frozen_until = Time::ZERO;
        self.skew_ms = 0;
    }

    /// Counts an occasion of the planned crash; true when the process crashes now.
    pub fn dies_at(&mut self, point: CrashPoint) -> bool {
        match &mut self.planned_crash {
            Some(crash) if crash.point == point => {
                if crash.skipped == 0 {
                    self.planned_crash = None;
                    return true;
                }
                crash.skipped -= 1;
                false
            }
            Some(_) | None => false,
        }
    }
}
