//! Collects the state of the agents of a swarm as [`SwarmState`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixfleet_proto::{ClosureHash, Hostname, RolloutId, Timestamp};

use crate::swarm_state::{
    HostStatus, Percentiles, RefusedDispatch, RefusedEvent, RolloutStatus, SwarmState, Totals,
};
use nixfleet_agent::core::{AgentCore, Notification};
use nixfleet_agent::shell::{Counter, Observer};

/// Dead letters and refusals kept per host; the totals count all.
const KEPT_MAX: usize = 32;

/// Observes all agents of a swarm.
#[derive(Debug)]
pub struct SwarmStateRecorder {
    seed: u64,
    started_at: Timestamp,
    hosts: BTreeMap<Hostname, Arc<HostStateRecorder>>,
    counters: Arc<Counters>,
}

/// Sums over all hosts.
#[derive(Debug, Default)]
pub struct Counters {
    changes: AtomicU64,
    accepted: AtomicU64,
    refused_events: AtomicU64,
    heartbeats: AtomicU64,
    dispatches: AtomicU64,
    refused: AtomicU64,
    crashes: AtomicU64,
    reboots: AtomicU64,
    outages: AtomicU64,
    network_errors: AtomicU64,
    by_kind: Mutex<BTreeMap<&'static str, u64>>,
}

/// Observes one agent over its restarts.
#[derive(Debug)]
pub struct HostStateRecorder {
    status: Mutex<HostStatus>,
    counters: Arc<Counters>,
}

/// An incident of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    Started,
    Crashed,
    Rebooted,
    WentOffline,
    CameOnline,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl SwarmStateRecorder {
    /// An observer of these hosts.
    pub fn new(
        seed: u64,
        started_at: Timestamp,
        hosts: impl IntoIterator<Item = (Hostname, ClosureHash)>,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let hosts = hosts
            .into_iter()
            .map(|(hostname, current_closure)| {
                let watch = HostStateRecorder {
                    status: Mutex::new(HostStatus {
                        current_closure,
                        running: false,
                        online: true,
                        rollouts: BTreeMap::new(),
                        refused_events: Vec::new(),
                        refused_dispatches: Vec::new(),
                        dispatch_latency_ms: Vec::new(),
                    }),
                    counters: Arc::clone(&counters),
                };
                (hostname, Arc::new(watch))
            })
            .collect();
        Self {
            seed,
            started_at,
            hosts,
            counters,
        }
    }

    pub fn watch(&self, hostname: &Hostname) -> Option<Arc<HostStateRecorder>> {
        self.hosts.get(hostname).cloned()
    }

    /// Grows with every change; equal numbers mean equal states.
    pub fn changes(&self) -> u64 {
        get(&self.counters.changes)
    }

    /// The current state of the swarm.
    pub fn state(&self, at: Timestamp) -> SwarmState {
        let mut state = self.summary(at);
        let hosts = self.hosts.iter();
        state.hosts = hosts
            .map(|(hostname, watch)| (hostname.clone(), watch.lock().clone()))
            .collect();
        state
    }

    /// The current state without the single hosts, whose copies are expensive.
    pub fn summary(&self, at: Timestamp) -> SwarmState {
        let mut totals = self.counters.totals();
        let mut by_closure: BTreeMap<ClosureHash, u64> = BTreeMap::new();
        let mut by_state: BTreeMap<RolloutId, BTreeMap<_, u64>> = BTreeMap::new();
        let mut latencies = Vec::new();
        for watch in self.hosts.values() {
            let host = watch.lock();
            totals.hosts += 1;
            totals.running += u64::from(host.running);
            totals.online += u64::from(host.running && host.online);
            *by_closure.entry(host.current_closure.clone()).or_default() += 1;
            latencies.extend_from_slice(&host.dispatch_latency_ms);
            for (id, rollout) in &host.rollouts {
                totals.pending_events += rollout.pending_events;
                let states = by_state.entry(id.clone()).or_default();
                *states.entry(rollout.state).or_default() += 1;
            }
        }
        let by_kind = self.counters.by_kind().clone();
        SwarmState {
            v: 1,
            at,
            started_at: self.started_at,
            seed: self.seed,
            totals,
            hosts_by_closure: by_closure,
            hosts_by_state: by_state,
            accepted_by_kind: by_kind
                .into_iter()
                .map(|(kind, count)| (kind.to_owned(), count))
                .collect(),
            dispatch_latency_ms: Percentiles::of(&mut latencies),
            hosts: BTreeMap::new(),
        }
    }
}

impl Counters {
    fn totals(&self) -> Totals {
        Totals {
            hosts: 0,
            running: 0,
            online: 0,
            accepted_events: get(&self.accepted),
            pending_events: 0,
            refused_events: get(&self.refused_events),
            heartbeats: get(&self.heartbeats),
            dispatches: get(&self.dispatches),
            refused_dispatches: get(&self.refused),
            crashes: get(&self.crashes),
            reboots: get(&self.reboots),
            outages: get(&self.outages),
            network_errors: get(&self.network_errors),
        }
    }

    fn by_kind(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.by_kind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostStateRecorder {
    fn lock(&self) -> MutexGuard<'_, HostStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what happened to the host.
    pub fn incident(&self, incident: Incident, current_closure: ClosureHash) {
        let mut host = self.lock();
        host.current_closure = current_closure;
        match incident {
            Incident::Started => host.running = true,
            Incident::Crashed => {
                host.running = false;
                add(&self.counters.crashes);
            }
            Incident::Rebooted => {
                host.running = false;
                add(&self.counters.reboots);
            }
            Incident::WentOffline => {
                host.online = false;
                add(&self.counters.outages);
            }
            Incident::CameOnline => host.online = true,
        }
        add(&self.counters.changes);
    }

    fn delivered(&self, rollout_id: &RolloutId, seq: u64, kind: &'static str) {
        if let Some(rollout) = self.lock().rollouts.get_mut(rollout_id) {
            rollout.accept(seq);
        }
        add(&self.counters.accepted);
        *self.counters.by_kind().entry(kind).or_default() += 1;
    }

    fn refused(&self, refused: RefusedDispatch) {
        add(&self.counters.refused);
        let mut host = self.lock();
        let known = host
            .refused_dispatches
            .iter_mut()
            .find(|known| known.rollout_id == refused.rollout_id && known.reason == refused.reason);
        match known {
            Some(known) => {
                known.count += 1;
                known.at = refused.at;
                known.message = refused.message;
            }
            None => push_bounded(&mut host.refused_dispatches, refused),
        }
    }
}

fn push_bounded<T>(items: &mut Vec<T>, item: T) {
    if items.len() >= KEPT_MAX {
        items.remove(0);
    }
    items.push(item);
}

impl Observer for HostStateRecorder {
    fn note(&self, note: &Notification, now: Timestamp) {
        match note {
            Notification::DispatchHeld { latency_ms, .. } => {
                add(&self.counters.dispatches);
                push_bounded(&mut self.lock().dispatch_latency_ms, *latency_ms);
            }
            Notification::Refused {
                rollout_id,
                reason,
                message,
            } => self.refused(RefusedDispatch {
                rollout_id: rollout_id.clone(),
                reason: reason.clone(),
                message: message.clone(),
                at: now,
                count: 1,
            }),
            Notification::Delivered {
                rollout_id,
                seq,
                kind,
            } => self.delivered(rollout_id, *seq, kind),
            Notification::EventRefused {
                rollout_id,
                seq,
                kind,
                status,
                code,
                message,
            } => {
                add(&self.counters.refused_events);
                let letter = RefusedEvent {
                    rollout_id: rollout_id.clone(),
                    seq: *seq,
                    kind: (*kind).to_owned(),
                    status: *status,
                    code: code.clone(),
                    message: message.clone(),
                    at: now,
                };
                push_bounded(&mut self.lock().refused_events, letter);
            }
            Notification::Transition { .. }
            | Notification::Recovered { .. }
            | Notification::Dropped { .. }
            | Notification::Unexpected { .. }
            | Notification::OutOfSequences { .. }
            | Notification::RollbackFailed { .. } => {}
        }
    }

    fn observe(&self, core: &AgentCore) {
        let mut host = self.lock();
        let mut changed = false;
        for (id, local) in core.rollouts() {
            let before = host.rollouts.get(id);
            let now = RolloutStatus {
                state: local.record.state,
                target_closure: local.record.target_closure.clone(),
                current_closure_at_dispatch: local.record.current_closure_at_dispatch.clone(),
                last_event_seq: local.record.last_event_seq,
                accepted_events: before.map_or(0, |known| known.accepted_events),
                accepted_seqs: before.map_or_else(Vec::new, |known| known.accepted_seqs.clone()),
                pending_events: u64::try_from(local.outbox.len()).unwrap_or(u64::MAX),
                replaced: local.replaced,
            };
            if before != Some(&now) {
                host.rollouts.insert(id.clone(), now);
                changed = true;
            }
        }
        if host.current_closure != *core.current_closure() {
            host.current_closure = core.current_closure().clone();
            changed = true;
        }
        if changed {
            add(&self.counters.changes);
        }
    }

    fn count(&self, counter: Counter) {
        match counter {
            Counter::Heartbeat => add(&self.counters.heartbeats),
            Counter::NetworkError => add(&self.counters.network_errors),
        }
    }
}
