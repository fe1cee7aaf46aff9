//! Requests of an agent, and what its shell makes of the answers.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_agent::core::{Input, ReleaseFault};
use nixfleet_agent::release_check::SignedRelease;
use nixfleet_proto::bounded_reply::Bounded;
use nixfleet_proto::wire::{EventRequest, HeartbeatReply, HeartbeatRequest};
use nixfleet_proto::{RolloutId, Timestamp};
use nixfleet_trust::VerifyError;

use super::AttackedHost;
use crate::byzantine::answer::{Artifacts, Offer};
use crate::byzantine::host_event::HostEvent;
use crate::byzantine::run_state::{RunState, without_answer};

/// How long the shell waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for artifacts.
const ARTIFACTS_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for a long-poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(65);
/// Shortest time between two long-polls, and the pause after one that failed.
const POLL_PAUSE: Duration = Duration::from_secs(1);

impl AttackedHost {
    pub(super) fn send(&mut self, requests: &[EventRequest], run_state: &mut RunState) {
        let Some(first) = requests.first() else {
            return;
        };
        let answer = run_state.events(requests);
        let in_time = answer.after < TIMEOUT;
        let results = answer.body.filter(|_| in_time);
        let results = results.unwrap_or_else(|| without_answer(requests.len()));
        let seqs = requests.iter().map(|request| request.event.seq);
        let input = Input::EventsAnswered {
            rollout_id: first.rollout_id.clone(),
            answers: seqs.zip(results).collect(),
        };
        self.later(answer.after.min(TIMEOUT), input, run_state);
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest, run_state: &mut RunState) {
        let answer = run_state.heartbeat(request);
        let text = answer.body.filter(|_| answer.after < TIMEOUT);
        let reply = text.and_then(|text| serde_json::from_str::<HeartbeatReply>(&text).ok());
        if let Some(reply) = &reply {
            run_state.trace(format_args!(
                "{} will be told {:?}",
                self.name, reply.bootstrap_rollouts
            ));
        }
        let reply = reply.and_then(|reply| Bounded::check(reply).ok());
        let input = reply.map_or(Input::HeartbeatFailed, Input::HeartbeatAnswered);
        self.later(answer.after.min(TIMEOUT), input, run_state);
    }

    pub(super) fn poll(&mut self, run_state: &mut RunState) {
        let answer = run_state.poll(&self.name);
        let offer = answer.body.filter(|_| answer.after < POLL_TIMEOUT);
        let event = HostEvent::PollEnds(self.life, offer.map(Box::new));
        run_state.schedule(answer.after.min(POLL_TIMEOUT), self.number, event);
    }

    pub(super) fn poll_ends(&mut self, offer: Option<Offer>, run_state: &mut RunState) {
        self.poll_failures = match offer {
            Some(_) => 0,
            None => self.poll_failures.saturating_add(1),
        };
        let pause = POLL_PAUSE * (1 + self.poll_failures.min(15));
        run_state.schedule(pause, self.number, HostEvent::Poll(self.life));
        if let Some(Some(dispatch)) = offer {
            run_state.trace(format_args!("{} is offered {dispatch:?}", self.name));
            if let Ok(dispatch) = Bounded::check(dispatch) {
                self.feed(Input::DispatchReceived(dispatch), run_state);
            }
        }
    }

    pub(super) fn fetch(&mut self, rollout_id: RolloutId, run_state: &mut RunState) {
        let answer = run_state.artifacts(&self.name, &rollout_id);
        let artifacts = answer.body.filter(|_| answer.after < ARTIFACTS_TIMEOUT);
        let event = HostEvent::ArtifactsArrive(self.life, rollout_id, artifacts.map(Box::new));
        run_state.schedule(answer.after.min(ARTIFACTS_TIMEOUT), self.number, event);
    }

    pub(super) fn artifacts_arrive(
        &mut self,
        rollout_id: RolloutId,
        artifacts: Option<Artifacts>,
        run_state: &mut RunState,
    ) {
        let now = run_state.now.wall(self.skew_ms);
        let Some(artifacts) = artifacts else {
            let fault = ReleaseFault {
                reason: "not-fetched".to_owned(),
                message: String::new(),
                retryable: true,
            };
            return self.feed(Input::ReleaseRefused { rollout_id, fault }, run_state);
        };
        let input = match verified(&artifacts, run_state, now) {
            Ok(release) => {
                self.check_genuine(&rollout_id, &release, run_state, now);
                self.guard.take_release(&release);
                Input::ReleaseVerified {
                    rollout_id,
                    release,
                }
            }
            Err(error) => Input::ReleaseRefused {
                rollout_id,
                fault: ReleaseFault {
                    reason: error.name().to_owned(),
                    message: error.to_string(),
                    retryable: false,
                },
            },
        };
        self.feed_observed(input, run_state);
    }

    /// Whatever verifies was signed.
    fn check_genuine(
        &mut self,
        asked: &RolloutId,
        release: &SignedRelease,
        run_state: &mut RunState,
        now: Timestamp,
    ) {
        let manifest = release.manifest.payload();
        let found = manifest.rollout_id();
        let signed_at = release.manifest.signed_at();
        let genuine = run_state.genuine.find(&found, signed_at);
        let genuine = genuine.filter(|genuine| {
            let signed = genuine.release.signed.get(&found);
            signed.is_some_and(|signed| signed.manifest.payload() == manifest)
        });
        match genuine {
            Some(genuine) => self.walks.given(asked, &found, genuine, now),
            None => {
                let message = format!("{found} of {signed_at} verifies, and nobody signed it");
                run_state.check("signatures", Err(message));
            }
        }
    }
}

/// Verifies artifacts as the shell does: what was verified under these keys before is known.
fn verified(
    artifacts: &Artifacts,
    run_state: &RunState,
    now: Timestamp,
) -> Result<SignedRelease, VerifyError> {
    let verifier = &run_state.verifier;
    let Artifacts { manifest, fleet } = artifacts;
    let manifest = match verifier.cached_manifest(&manifest.signature, now) {
        Some(known) => known,
        None => verifier.manifest(&manifest.bytes, &manifest.signature, now)?,
    };
    let hash = &manifest.payload().fleet_resolved_hash;
    let fleet = match verifier.cached_fleet(hash, now) {
        Some(known) => known,
        None => verifier.fleet(&fleet.bytes, &fleet.signature, now)?,
    };
    Ok(SignedRelease {
        manifest: Arc::clone(&manifest),
        fleet,
    })
}
