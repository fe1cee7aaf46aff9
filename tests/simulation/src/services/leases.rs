//! Leases: the real core against the model bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_bus::LeaseConfig;
use nixfleet_bus::lease::{
    Answer, Command, Identity, InstanceId, LeaseCore, Signal, Timing, WriteResult,
};

use crate::addressing::{Incarnation, Route, Service};
use crate::simulated_servers::{ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// A change of the leases that a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// The lease was acquired: work may begin.
    Acquired(String),
    /// Another process waits: work should end in an orderly way.
    ReleaseRequested(String),
    /// The lease was lost: work ends at once.
    Lost(String),
}

/// Call number of a timer that makes a process check its leases.
pub const WAKE_CALL: u64 = 0;

/// The leases of a process.
#[derive(Debug)]
pub struct Leases {
    me: Incarnation,
    service: Service,
    keys: Vec<String>,
    core: LeaseCore,
    watch: Option<u64>,
    calls: BTreeMap<u64, LeaseCall>,
    timer: Option<LeaseTimer>,
    /// Keys that a worker waits for.
    wanted: BTreeSet<String>,
    /// Keys whose work ignores the core; true: the core reported the loss of the lease.
    ignored_changes: BTreeMap<String, bool>,
}

/// A call that waits for its reply.
#[derive(Debug, Clone, Copy)]
struct LeaseCall {
    /// What the core knows it by.
    ticket: u64,
    kind: CallKind,
}

/// The timer of the next poll of the core.
#[derive(Debug, Clone, Copy)]
struct LeaseTimer {
    call: u64,
    due: Duration,
}

#[derive(Debug, Clone, Copy)]
enum CallKind {
    Write,
    Read,
}

impl Leases {
    /// Requests the leases of all keys.
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
            calls: BTreeMap::new(),
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

    /// Releases all leases; true when none is held.
    pub fn stop(&mut self, env: &mut Environment) -> (Vec<LeaseChange>, bool) {
        self.core.stop(env.now.since_start());
        let changes = self.update(env);
        (changes, self.core.is_ended())
    }

    /// Requests the lease of a key.
    pub fn want(&mut self, key: &str, env: &mut Environment) -> Vec<LeaseChange> {
        self.wanted.insert(key.to_owned());
        self.core.want(key);
        self.update(env)
    }

    /// Releases a lease after its work ended.
    pub fn release(&mut self, key: &str, env: &mut Environment) -> Vec<LeaseChange> {
        self.core.release(env.now.since_start(), key);
        self.stop_waiting(key, env)
    }

    /// Releases a lease after its work failed, so that other processes acquire it first.
    pub fn give_up(&mut self, key: &str, env: &mut Environment) -> Vec<LeaseChange> {
        self.core.give_up(env.now.since_start(), key);
        self.stop_waiting(key, env)
    }

    /// Withdraws the request for a lease, which may be pending when the work ignored the core.
    fn stop_waiting(&mut self, key: &str, env: &mut Environment) -> Vec<LeaseChange> {
        self.core.cancel_want(env.now.since_start(), key);
        self.ignored_changes.remove(key);
        self.update(env)
    }

    /// Processes a reply or a timer.
    pub fn take(
        &mut self,
        call: u64,
        reply: Option<ServerReply>,
        env: &mut Environment,
    ) -> Vec<LeaseChange> {
        let now = env.now.since_start();
        let is_timer = self.timer.is_some_and(|timer| timer.call == call);
        let is_known = is_timer || call == WAKE_CALL || self.calls.contains_key(&call);
        if !is_known && self.watch != Some(call) {
            return Vec::new();
        }
        if is_timer {
            self.timer = None;
        }
        match reply {
            Some(ServerReply::LeaseChanged(key, observed)) if self.watch == Some(call) => {
                self.core.watched(now, &key, observed);
            }
            Some(ServerReply::LeasesCaughtUp) if self.watch == Some(call) => {
                self.core.watch_caught_up(now)
            }
            reply => {
                if let Some(LeaseCall { ticket, kind }) = self.calls.remove(&call) {
                    let answer = match (kind, reply) {
                        (_, Some(ServerReply::LeaseWritten(written))) => Answer::Written(written),
                        (_, Some(ServerReply::LeaseFound(observed))) => Answer::Found(observed),
                        (CallKind::Write, _) => Answer::Written(WriteResult::Unknown),
                        (CallKind::Read, _) => Answer::NoAnswer,
                    };
                    self.core.answered(now, ticket, answer);
                }
            }
        }
        self.update(env)
    }

    /// Executes the commands of the core and gives the changes, which a fault may hide.
    fn update(&mut self, env: &mut Environment) -> Vec<LeaseChange> {
        let mut changes = self.run_commands(env);
        self.ignore_lease_changes(&mut changes, env);
        changes
    }

    /// Executes the commands of the core until it has none.
    fn run_commands(&mut self, env: &mut Environment) -> Vec<LeaseChange> {
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
            && self.timer.is_none_or(|timer| due < timer.due)
        {
            // One microsecond later, so that rounding never makes it early.
            let pause = due.saturating_sub(now) + Duration::from_micros(1);
            let call = env.start_timer(self.me, Route::Lease, pause);
            self.timer = Some(LeaseTimer { call, due });
        }
        changes
    }

    fn perform(&mut self, command: Command, changes: &mut Vec<LeaseChange>, env: &mut Environment) {
        let service = self.service;
        let (ticket, kind, request) = match command {
            Command::Watch => {
                let request = ServerRequest::WatchLeases(service);
                self.watch = Some(env.call_streaming(self.me, Route::Lease, request));
                return;
            }
            Command::Signal(signal) => {
                let name = env.processes[self.me.id].name();
                env.trace(format_args!("{name} {signal:?}"));
                return self.apply_signal(signal, changes);
            }
            Command::Put {
                ticket,
                key,
                record,
                expected,
            } => {
                let request = ServerRequest::PutLease(service, key, record, expected);
                (ticket, CallKind::Write, request)
            }
            Command::Delete {
                ticket,
                key,
                expected,
            } => {
                let request = ServerRequest::DeleteLease(service, key, expected);
                (ticket, CallKind::Write, request)
            }
            Command::Read { ticket, key } => (
                ticket,
                CallKind::Read,
                ServerRequest::ReadLease(service, key),
            ),
        };
        let call = env.call(self.me, Route::Lease, request);
        self.calls.insert(call, LeaseCall { ticket, kind });
    }

    fn apply_signal(&mut self, signal: Signal, changes: &mut Vec<LeaseChange>) {
        match signal {
            // Without a request, the work ignores the core and runs already.
            Signal::Acquired(key) => {
                if self.wanted.remove(&key) {
                    changes.push(LeaseChange::Acquired(key));
                }
            }
            Signal::Recalled(key) => changes.push(LeaseChange::ReleaseRequested(key)),
            Signal::Lost(key, _) => changes.push(LeaseChange::Lost(key)),
            Signal::Released(_) | Signal::Joined | Signal::NameTaken(_) => {}
        }
    }

    /// Under the fault, hides losses and works on all keys.
    fn ignore_lease_changes(&mut self, changes: &mut Vec<LeaseChange>, env: &Environment) {
        if env.now < env.processes[self.me.id].ignores_leases_until {
            changes.retain(|change| match change {
                LeaseChange::Acquired(_) => true,
                LeaseChange::ReleaseRequested(key) | LeaseChange::Lost(key) => {
                    self.ignored_changes.insert(key.clone(), true);
                    false
                }
            });
            for key in std::mem::take(&mut self.wanted) {
                self.ignored_changes.insert(key.clone(), false);
                changes.push(LeaseChange::Acquired(key));
            }
            return;
        }
        let now = env.now.since_start();
        for (key, is_told) in std::mem::take(&mut self.ignored_changes) {
            if is_told || !self.core.is_held(now, &key) {
                changes.push(LeaseChange::Lost(key));
            }
        }
    }
}
