//! Leases: the real core against the model bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_bus::LeaseConfig;
use nixfleet_bus::lease::{
    Answer, Command, Identity, InstanceId, LeaseCore, Signal, Timing, WriteResult,
};

use crate::addressing::{Incarnation, Route, Service};
use crate::model::{ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// A change of what is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Work under this key may begin.
    Gained(String),
    /// Work under this key shall end in good order.
    Recalled(String),
    /// Work under this key is over.
    Lost(String),
}

/// The call of a timer that only makes a process look at its leases.
pub const WAKE_CALL: u64 = 0;

/// The leases of a process.
#[derive(Debug)]
pub struct Leases {
    me: Incarnation,
    service: Service,
    keys: Vec<String>,
    core: LeaseCore,
    watch: Option<u64>,
    asked: BTreeMap<u64, (u64, Asked)>,
    timer: Option<(u64, Duration)>,
    /// Keys that a worker waits for.
    wanted: BTreeSet<String>,
    /// Keys that are worked on against the core's word; true: it told the work to end.
    ignored_changes: BTreeMap<String, bool>,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Write,
    Read,
}

impl Leases {
    /// Wants all keys of the service.
    pub fn start(
        me: Incarnation,
        service: Service,
        keys: Vec<String>,
        env: &mut Environment,
    ) -> Self {
        let instance = env.processes[me.id].name();
        let identity = Identity {
            writer: InstanceId {
                process: format!("{instance}/{}", me.life),
                instance,
            },
            version: "simulated".to_owned(),
            since: env.wall(me),
        };
        let timing = Timing::from(LeaseConfig {
            ttl_seconds: 16,
            renew_seconds: 5,
            ..LeaseConfig::default()
        });
        let now = env.now.since_start();
        let mut core = LeaseCore::new(identity, &keys, timing, now);
        for key in &keys {
            core.want(key);
        }
        let mut leases = Self {
            me,
            service,
            wanted: keys.iter().cloned().collect(),
            keys,
            core,
            watch: None,
            asked: BTreeMap::new(),
            timer: None,
            ignored_changes: BTreeMap::new(),
        };
        let changes = leases.run_commands(env);
        debug_assert!(changes.is_empty(), "nothing is held without an answer");
        leases
    }

    /// The keys of the service.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// True when the core holds the key at this time.
    pub fn is_held(&self, now: Duration, key: &str) -> bool {
        self.core.is_held(now, key)
    }

    /// The process shall end; true when nothing is held any more.
    pub fn stop(&mut self, env: &mut Environment) -> (Vec<Change>, bool) {
        self.core.stop(env.now.since_start());
        let changes = self.pump(env);
        (changes, self.core.is_ended())
    }

    /// A worker waits for a key.
    pub fn want(&mut self, key: &str, env: &mut Environment) -> Vec<Change> {
        self.wanted.insert(key.to_owned());
        self.core.want(key);
        self.pump(env)
    }

    /// Work under a key ended.
    pub fn release(&mut self, key: &str, env: &mut Environment) -> Vec<Change> {
        self.core.release(env.now.since_start(), key);
        self.leave(key, env)
    }

    /// Work under a key failed: others may go first.
    pub fn give_up(&mut self, key: &str, env: &mut Environment) -> Vec<Change> {
        self.core.give_up(env.now.since_start(), key);
        self.leave(key, env)
    }

    /// Nobody works under a key. When the work was against the core's word, the core still waits.
    fn leave(&mut self, key: &str, env: &mut Environment) -> Vec<Change> {
        self.core.cancel_want(env.now.since_start(), key);
        self.ignored_changes.remove(key);
        self.pump(env)
    }

    /// Takes an answer or a timer.
    pub fn take(
        &mut self,
        call: u64,
        reply: Option<ServerReply>,
        env: &mut Environment,
    ) -> Vec<Change> {
        let now = env.now.since_start();
        let is_timer = self.timer.is_some_and(|(timer, _)| timer == call);
        let is_known = is_timer || call == WAKE_CALL || self.asked.contains_key(&call);
        if !is_known && self.watch != Some(call) {
            return Vec::new();
        }
        if is_timer {
            self.timer = None;
        }
        match reply {
            Some(ServerReply::LeaseSeen(key, observed)) if self.watch == Some(call) => {
                self.core.watched(now, &key, observed);
            }
            Some(ServerReply::LeasesCaughtUp) if self.watch == Some(call) => {
                self.core.watch_caught_up(now)
            }
            reply => {
                if let Some((ticket, asked)) = self.asked.remove(&call) {
                    let answer = match (asked, reply) {
                        (_, Some(ServerReply::LeaseWritten(written))) => Answer::Written(written),
                        (_, Some(ServerReply::LeaseFound(observed))) => Answer::Found(observed),
                        (Asked::Write, _) => Answer::Written(WriteResult::Unknown),
                        (Asked::Read, _) => Answer::NoAnswer,
                    };
                    self.core.answered(now, ticket, answer);
                }
            }
        }
        self.pump(env)
    }

    /// Does what the core says, or not.
    fn pump(&mut self, env: &mut Environment) -> Vec<Change> {
        let mut changes = self.run_commands(env);
        self.ignore_lease_changes(&mut changes, env);
        changes
    }

    /// Does what the core says until it says nothing more.
    fn run_commands(&mut self, env: &mut Environment) -> Vec<Change> {
        let now = env.now.since_start();
        let mut changes = Vec::new();
        loop {
            let commands = self.core.poll(now);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.perform(command, &mut changes, env);
            }
        }
        if let Some(due) = self.core.due()
            && self.timer.is_none_or(|(_, planned)| due < planned)
        {
            // A moment later than due, so that rounding never makes it early.
            let pause = due.saturating_sub(now) + Duration::from_micros(1);
            self.timer = Some((env.timer(self.me, Route::Lease, pause), due));
        }
        changes
    }

    fn perform(&mut self, command: Command, changes: &mut Vec<Change>, env: &mut Environment) {
        let service = self.service;
        let (ticket, asked, op) = match command {
            Command::Watch => {
                let op = ServerRequest::WatchLeases(service);
                self.watch = Some(env.open(self.me, Route::Lease, op));
                return;
            }
            Command::Signal(signal) => {
                let name = env.processes[self.me.id].name();
                env.trace(format_args!("{name} {signal:?}"));
                return self.tell(signal, changes);
            }
            Command::Put {
                ticket,
                key,
                record,
                expected,
            } => {
                let op = ServerRequest::PutLease(service, key, record, expected);
                (ticket, Asked::Write, op)
            }
            Command::Delete {
                ticket,
                key,
                expected,
            } => {
                let op = ServerRequest::DeleteLease(service, key, expected);
                (ticket, Asked::Write, op)
            }
            Command::Read { ticket, key } => {
                (ticket, Asked::Read, ServerRequest::ReadLease(service, key))
            }
        };
        let call = env.call(self.me, Route::Lease, op);
        self.asked.insert(call, (ticket, asked));
    }

    fn tell(&mut self, signal: Signal, changes: &mut Vec<Change>) {
        match signal {
            // Where nobody waits, the work began against the core's word.
            Signal::Acquired(key) => {
                if self.wanted.remove(&key) {
                    changes.push(Change::Gained(key));
                }
            }
            Signal::Recalled(key) => changes.push(Change::Recalled(key)),
            Signal::Lost(key, _) => changes.push(Change::Lost(key)),
            Signal::Released(_) | Signal::Joined | Signal::NameTaken(_) => {}
        }
    }

    /// Under this fault the process works on everything, whoever holds it.
    fn ignore_lease_changes(&mut self, changes: &mut Vec<Change>, env: &Environment) {
        if env.now < env.processes[self.me.id].ignores_leases_until {
            changes.retain(|change| match change {
                Change::Gained(_) => true,
                Change::Recalled(key) | Change::Lost(key) => {
                    self.ignored_changes.insert(key.clone(), true);
                    false
                }
            });
            for key in std::mem::take(&mut self.wanted) {
                self.ignored_changes.insert(key.clone(), false);
                changes.push(Change::Gained(key));
            }
            return;
        }
        let now = env.now.since_start();
        for (key, is_told) in std::mem::take(&mut self.ignored_changes) {
            if is_told || !self.core.is_held(now, &key) {
                changes.push(Change::Lost(key));
            }
        }
    }
}
