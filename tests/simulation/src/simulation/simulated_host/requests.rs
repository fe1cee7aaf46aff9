//! Requests of an agent to the gateways, and their responses.

use std::time::Duration;

use nixfleet_agent::core::{DeliveryResult, Input, ReleaseFault};
use nixfleet_proto::RolloutId;
use nixfleet_proto::bounded_reply::Bounded;
use nixfleet_proto::wire::{EventRequest, HeartbeatRequest};

use super::{PendingRequest, SimulatedHost};
use crate::gateway_messages::{
    AgentRequest, GatewayRequest, GatewayRequestBody, GatewayResponse, Requester,
};
use crate::simulation::environment::Environment;
use crate::simulation::event::{SimulatedHostEvent, SimulationEvent};

/// How long an agent waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a long-poll, above the gateway's own limit.
const POLL_TIMEOUT: Duration = Duration::from_secs(70);
/// Shortest time between two long-polls.
const POLL_PAUSE: Duration = Duration::from_secs(1);
/// Pause after one that failed.
const POLL_RETRY: Duration = Duration::from_secs(3);

impl SimulatedHost {
    pub(super) fn send(&mut self, requests: Vec<EventRequest>, env: &mut Environment) {
        let Some(first) = requests.first() else {
            return;
        };
        let seqs = requests.iter().map(|request| request.event.seq).collect();
        let pending = PendingRequest::Events(first.rollout_id.clone(), seqs);
        self.ask(pending, GatewayRequestBody::Events(requests), env);
    }

    /// Sends a heartbeat; under a fault it reports a closure that the host does not run.
    pub(super) fn heartbeat(&mut self, mut request: HeartbeatRequest, env: &mut Environment) {
        let is_false = env.now < self.false_closures_until.max(env.heartbeat_storm_until);
        if is_false && request.current_closure.is_some() {
            let closures = env.known_closures();
            request.current_closure = Some(env.network_rng.pick(&closures).clone());
            env.trace(format_args!(
                "{} reports a false closure: {:?}",
                self.name, request.current_closure
            ));
        }
        self.ask(
            PendingRequest::Heartbeat,
            GatewayRequestBody::Heartbeat(request),
            env,
        );
    }

    pub(super) fn poll(&mut self, env: &mut Environment) {
        self.ask(PendingRequest::Poll, GatewayRequestBody::Poll, env);
    }

    pub(super) fn fetch(&mut self, rollout_id: RolloutId, env: &mut Environment) {
        let pending = PendingRequest::Artifacts(rollout_id.clone());
        self.ask(pending, GatewayRequestBody::Artifacts(rollout_id), env);
    }

    fn ask(&mut self, pending: PendingRequest, body: GatewayRequestBody, env: &mut Environment) {
        let number = self.next_request;
        self.next_request += 1;
        let timeout = match pending {
            PendingRequest::Poll => POLL_TIMEOUT,
            PendingRequest::Events(..)
            | PendingRequest::Heartbeat
            | PendingRequest::Artifacts(_) => TIMEOUT,
        };
        self.pending.insert(number, pending);
        let request = AgentRequest {
            host: self.id,
            life: self.life,
            number,
        };
        let expired = SimulatedHostEvent::RequestTimesOut(request);
        env.schedule(timeout, SimulationEvent::Host(self.id, expired));
        if self.online {
            let from = Requester::Agent(request);
            env.request(GatewayRequest { from, body });
        }
    }

    pub(super) fn request_expired(&mut self, number: u64, env: &mut Environment) {
        self.answered(number, GatewayResponse::Unavailable, env);
    }

    pub(super) fn answered(&mut self, number: u64, answer: GatewayResponse, env: &mut Environment) {
        // A response after the timeout is dropped.
        let Some(pending) = self.pending.remove(&number) else {
            return;
        };
        match pending {
            PendingRequest::Events(rollout_id, seqs) => {
                self.events_answered(rollout_id, seqs, answer, env)
            }
            PendingRequest::Heartbeat => {
                let input = match answer {
                    GatewayResponse::Heartbeat(reply) => Bounded::check(reply.reply)
                        .map_or(Input::HeartbeatFailed, Input::HeartbeatAnswered),
                    GatewayResponse::Stored(_)
                    | GatewayResponse::Unavailable
                    | GatewayResponse::NotFound
                    | GatewayResponse::Dispatch(_)
                    | GatewayResponse::Artifacts(_) => Input::HeartbeatFailed,
                };
                self.feed(input, env);
            }
            PendingRequest::Poll => self.polled(answer, env),
            PendingRequest::Artifacts(rollout_id) => self.fetched(rollout_id, answer, env),
        }
    }

    /// The gateway stored the first events; the others are unknown.
    fn events_answered(
        &mut self,
        rollout_id: RolloutId,
        seqs: Vec<u64>,
        answer: GatewayResponse,
        env: &mut Environment,
    ) {
        let durable = match answer {
            GatewayResponse::Stored(count) => count,
            GatewayResponse::Unavailable
            | GatewayResponse::NotFound
            | GatewayResponse::Heartbeat(_)
            | GatewayResponse::Dispatch(_)
            | GatewayResponse::Artifacts(_) => 0,
        };
        let answers = seqs.into_iter().zip(0..).map(|(seq, place)| {
            if place < durable {
                env.invariants.acknowledged(&self.name, &rollout_id, seq);
                return (seq, DeliveryResult::Delivered);
            }
            let message = String::new();
            (seq, DeliveryResult::Unavailable { message })
        });
        let answers = answers.collect();
        let input = Input::EventsAnswered {
            rollout_id,
            answers,
        };
        self.feed(input, env);
    }

    fn polled(&mut self, answer: GatewayResponse, env: &mut Environment) {
        let again = SimulatedHostEvent::Poll(self.life);
        match answer {
            GatewayResponse::Dispatch(dispatch) => {
                self.poll_failures = 0;
                env.schedule(POLL_PAUSE, SimulationEvent::Host(self.id, again));
                if let Some(dispatch) = dispatch {
                    env.trace(format_args!(
                        "{} is offered {}",
                        self.name, dispatch.rollout_id
                    ));
                    env.invariants.delivered(&dispatch);
                    if let Ok(dispatch) = Bounded::check(*dispatch) {
                        self.feed(Input::DispatchReceived(dispatch), env);
                    }
                }
            }
            GatewayResponse::Stored(_)
            | GatewayResponse::Unavailable
            | GatewayResponse::NotFound
            | GatewayResponse::Heartbeat(_)
            | GatewayResponse::Artifacts(_) => {
                self.poll_failures = self.poll_failures.saturating_add(1);
                env.schedule(
                    POLL_RETRY * self.poll_failures.min(4),
                    SimulationEvent::Host(self.id, again),
                );
            }
        }
    }

    fn fetched(&mut self, rollout_id: RolloutId, answer: GatewayResponse, env: &mut Environment) {
        let input = match answer {
            GatewayResponse::Artifacts(release) => Input::ReleaseVerified {
                rollout_id,
                release: *release,
            },
            GatewayResponse::Stored(_)
            | GatewayResponse::Unavailable
            | GatewayResponse::NotFound
            | GatewayResponse::Heartbeat(_)
            | GatewayResponse::Dispatch(_) => Input::ReleaseRefused {
                rollout_id,
                fault: ReleaseFault {
                    reason: "not-fetched".to_owned(),
                    message: String::new(),
                    retryable: true,
                },
            },
        };
        self.feed_observed(input, env);
    }
}
