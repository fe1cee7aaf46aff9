//! What all actors of a run share: time, chance, the control plane of the moment, and what was signed.

use std::fmt;
use std::time::Duration;

use nixfleet_agent::artifact_verifier::Verifier;
use nixfleet_agent::core::DeliveryResult;
use nixfleet_proto::wire::{EventRequest, HeartbeatRequest};
use nixfleet_proto::{Hostname, RolloutId};

use super::answer::{Answer, Artifacts, EventResults, Offer, ReplyText};
use super::coverage::Coverage;
use super::genuine_releases::{AnswerContext, GenuineReleases, START};
use super::honest_control_plane::HonestControlPlane;
use super::host_event::HostEvent;
use super::hostile_control_plane::HostileControlPlane;
use crate::engine::{Queue, Rng, Time, Trace};
use crate::invariant_monitor::Violation;
use crate::signed_release;

/// The control plane of the moment.
#[derive(Debug)]
pub enum ControlPlane {
    /// Says what it likes.
    Hostile(Box<HostileControlPlane>),
    /// The fold, the planner and what ingest does.
    Honest(Box<HonestControlPlane>),
}

/// The surroundings of the hosts.
#[derive(Debug)]
pub struct RunState {
    /// Virtual time.
    pub now: Time,
    /// Chance of machines and networks.
    pub rng: Rng,
    /// What was signed.
    pub genuine: GenuineReleases,
    /// The verifier of all agents of the run, as in one process.
    pub verifier: Verifier,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// Counts.
    pub coverage: Coverage,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// In 1,000 commands, how often an agent crashes before one.
    pub crash_rate: u32,
    /// The trace.
    pub trace: Trace,
    queue: Queue<(usize, HostEvent)>,
}

impl RunState {
    /// The beginning of a seed's run.
    pub fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed, "hosts under attack");
        Self {
            now: START,
            genuine: GenuineReleases::of(seed),
            verifier: Verifier::new(signed_release::trust()),
            control_plane: ControlPlane::Hostile(Box::new(HostileControlPlane::new(seed))),
            coverage: Coverage::default(),
            violation: None,
            crash_rate: *rng.pick(&[0, 1, 5, 20]),
            trace,
            queue: Queue::default(),
            rng,
        }
    }

    /// Schedules an event of a host.
    pub fn schedule(&mut self, pause: Duration, host: usize, event: HostEvent) {
        self.queue.push(self.now + pause, (host, event));
    }

    /// The next event; advances the time.
    pub fn next_event(&mut self) -> Option<(usize, HostEvent)> {
        let (at, event) = self.queue.pop()?;
        self.now = self.now.max(at);
        Some(event)
    }

    /// Adds a line to the trace.
    pub fn trace(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.now, text);
    }

    /// Keeps the first violation.
    pub fn check(&mut self, invariant: &'static str, result: Result<(), String>) {
        if let (Err(message), None) = (result, &self.violation) {
            self.violation = Some(Violation { invariant, message });
        }
    }

    /// Sends a heartbeat.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest) -> Answer<ReplyText> {
        let at = AnswerContext {
            genuine: &self.genuine,
            now: self.now,
        };
        match &mut self.control_plane {
            ControlPlane::Hostile(hostile) => hostile.heartbeat(request, at),
            ControlPlane::Honest(honest) => honest.heartbeat(request, self.now),
        }
    }

    /// Sends events.
    pub fn events(&mut self, requests: &[EventRequest]) -> Answer<EventResults> {
        let at = AnswerContext {
            genuine: &self.genuine,
            now: self.now,
        };
        match &mut self.control_plane {
            ControlPlane::Hostile(hostile) => hostile.events(requests, at),
            ControlPlane::Honest(honest) => honest.events(requests, self.now),
        }
    }

    /// Asks for a dispatch.
    pub fn poll(&mut self, host: &Hostname) -> Answer<Offer> {
        let at = AnswerContext {
            genuine: &self.genuine,
            now: self.now,
        };
        match &mut self.control_plane {
            ControlPlane::Hostile(hostile) => hostile.poll(host, at),
            ControlPlane::Honest(honest) => honest.poll(host, self.now),
        }
    }

    /// Asks for the artifacts of a rollout.
    pub fn artifacts(&mut self, host: &Hostname, rollout_id: &RolloutId) -> Answer<Artifacts> {
        let at = AnswerContext {
            genuine: &self.genuine,
            now: self.now,
        };
        match &mut self.control_plane {
            ControlPlane::Hostile(hostile) => hostile.artifacts(host, rollout_id, at),
            ControlPlane::Honest(honest) => honest.artifacts(rollout_id, at),
        }
    }
}

/// The results of a request without an answer.
pub fn without_answer(requests: usize) -> EventResults {
    let message = String::new();
    vec![DeliveryResult::Unavailable { message }; requests]
}
