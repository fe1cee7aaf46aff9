//! Replies of a control plane to an agent: within bounds, or refused; and a real agent that gets them does
//! not panic, and does not touch its machine.

use std::sync::LazyLock;

use chrono::{Datelike as _, TimeDelta};
use nixfleet_agent::artifact_verifier::Verifier;
use nixfleet_agent::core::{
    AgentConfig, AgentCore, Command, DeliveryResult, Input, SavedState, SwitchOutcome,
};
use nixfleet_agent::release_check::SignedRelease;
use nixfleet_proto::bounded_reply::Bounded;
use nixfleet_proto::wire::{Dispatch, EventAnswer, HeartbeatReply, HostSnapshot};
use nixfleet_proto::{ClosureHash, HostState, Minutes, RolloutId, Timestamp};
use nixfleet_trust::{ReleaseStamp, TrustFile, build_release};
use serde_json::json;

use super::{key, now, written};

const HOST: &str = "web-01";
const TARGET: &str = "b";
/// Longest text that a reply may have.
const TEXT_BYTES_MAX: usize = 1024;
/// Most records that a reply may have.
const SNAPSHOTS_MAX: usize = 1_000;

/// The reply to a heartbeat, from any bytes.
pub fn heartbeat_reply(data: &[u8]) {
    let Ok(reply) = serde_json::from_slice::<HeartbeatReply>(data) else {
        return;
    };
    let again: HeartbeatReply = serde_json::from_slice(&written(&reply)).expect("reads back");
    assert_eq!(again, reply);
    reach_agents(&[reply]);
}

/// A dispatch, from any bytes.
pub fn dispatch_reply(data: &[u8]) {
    let Ok(dispatch) = serde_json::from_slice::<Dispatch>(data) else {
        return;
    };
    let again: Dispatch = serde_json::from_slice(&written(&dispatch)).expect("reads back");
    assert_eq!(again, dispatch);
    let Ok(bounded) = Bounded::check(dispatch.clone()) else {
        return;
    };
    check_text(dispatch.rollout_id.as_str());
    check_text(dispatch.target_closure.as_str());
    check_time(dispatch.enqueued_at);
    check_time(dispatch.soak_due_at);
    for mut agent in AGENTS.iter().cloned() {
        idle(agent.step(Input::DispatchReceived(bounded.clone()), now()));
        idle(agent.step(Input::Tick, now() + TimeDelta::seconds(100)));
    }
}

/// Results of events, from any bytes.
pub fn event_answers(data: &[u8]) {
    let Ok(answers) = serde_json::from_slice::<Vec<EventAnswer>>(data) else {
        return;
    };
    let again: Vec<EventAnswer> = serde_json::from_slice(&written(&answers)).expect("reads back");
    assert_eq!(again, answers);
    for mut agent in AGENTS.iter().cloned() {
        let results = (1..).zip(&answers).map(|(seq, answer)| {
            let result = match &answer.error {
                None => DeliveryResult::Delivered,
                Some(error) => DeliveryResult::Refused {
                    status: answer.status,
                    code: error.code.clone(),
                    message: error.message.clone(),
                },
            };
            (seq, result)
        });
        let input = Input::EventsAnswered {
            rollout_id: rollout(),
            answers: results.collect(),
        };
        idle(agent.step(input, now()));
    }
}

/// Snapshots in replies, from the fuzzer's choice of values: several replies in a row, because an agent acts
/// on repetition only.
pub fn snapshots(data: &[u8]) {
    let mut choices = Choices(data);
    let mut replies = Vec::new();
    while !choices.0.is_empty() && replies.len() < 12 {
        let records = usize::from(choices.byte() % 3);
        let snapshots: Vec<_> = (0..records).map(|_| choices.snapshot()).collect();
        for snapshot in &snapshots {
            let again: HostSnapshot =
                serde_json::from_slice(&written(snapshot)).expect("reads back");
            assert_eq!(again, *snapshot);
        }
        let reply = HeartbeatReply {
            received_at: now(),
            bootstrap_rollouts: snapshots,
        };
        let times = 1 + usize::from(choices.byte() % 3);
        replies.extend(std::iter::repeat_n(reply, times));
    }
    reach_agents(&replies);
}

/// Gives replies to an agent without rollouts and to one that soaks.
fn reach_agents(replies: &[HeartbeatReply]) {
    let replies = replies
        .iter()
        .filter_map(|reply| Bounded::check(reply.clone()).ok());
    let replies: Vec<_> = replies.inspect(|reply| check_bounds(reply)).collect();
    for mut agent in AGENTS.iter().cloned() {
        let mut at = now();
        for reply in &replies {
            at += TimeDelta::seconds(61);
            idle(agent.step(Input::Tick, at));
            idle(agent.step(Input::HeartbeatAnswered(reply.clone()), at));
        }
    }
}

/// A reply alone starts nothing on the machine, and no event has a number that nobody stores.
fn idle(commands: Vec<Command>) {
    for command in commands {
        let acts = matches!(command, Command::Switch { .. } | Command::Rollback { .. });
        assert!(!acts, "{command:?}");
        if let Command::Send(requests) = &command {
            let seqs = requests.iter().map(|request| request.event.seq);
            assert!(
                seqs.into_iter()
                    .all(|seq| (1..=i64::MAX as u64).contains(&seq))
            );
        }
    }
}

fn check_bounds(reply: &HeartbeatReply) {
    assert!(reply.bootstrap_rollouts.len() <= SNAPSHOTS_MAX);
    check_time(reply.received_at);
    for snapshot in &reply.bootstrap_rollouts {
        assert!(snapshot.last_event_seq <= i64::MAX as u64);
        check_text(snapshot.rollout_id.as_str());
        check_text(snapshot.target_closure.as_str());
        let closures = [
            &snapshot.current_closure,
            &snapshot.current_closure_at_dispatch,
        ];
        closures
            .into_iter()
            .flatten()
            .for_each(|closure| check_text(closure.as_str()));
        check_time(snapshot.dispatched_at);
        let times = [
            snapshot.dispatch_acked_at,
            snapshot.activation_started_at,
            snapshot.activation_completed_at,
            snapshot.soak_due_at,
        ];
        times.into_iter().flatten().for_each(check_time);
    }
}

fn check_text(text: &str) {
    assert!(
        text.len() <= TEXT_BYTES_MAX && !text.contains('\0'),
        "{text:?}"
    );
}

fn check_time(at: Timestamp) {
    assert!((2000..2200).contains(&at.year()), "{at}");
}

/// Values from the fuzzer's bytes; zeros at the end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => u64::from(self.byte()),
            1 => u64::MAX - u64::from(self.byte()),
            2 => (i64::MAX as u64).saturating_add(u64::from(self.byte())) - 128,
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    fn time(&mut self) -> Timestamp {
        let number = self.number();
        let near = now() + TimeDelta::seconds(i64::from(self.byte()) - 128);
        // Bits of a number that is no date give the moment of the reply.
        Timestamp::from_timestamp(number.cast_signed(), 0).unwrap_or(near)
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| value(self))
    }

    fn closure(&mut self) -> ClosureHash {
        match self.byte() % 5 {
            0 => ClosureHash::from("a"),
            1 => ClosureHash::from(TARGET),
            2 => ClosureHash::from("evil"),
            3 => ClosureHash::from(""),
            _ => ClosureHash::from("x".repeat(usize::from(self.byte()) * 5)),
        }
    }

    fn snapshot(&mut self) -> HostSnapshot {
        let rollout_id = match self.byte() % 3 {
            0 | 1 => rollout(),
            _ => "stable@02".parse().expect("a constant"),
        };
        HostSnapshot {
            channel: rollout_id.channel(),
            rollout_id,
            hostname: if self.byte() % 8 == 7 { "other" } else { HOST }.into(),
            state: HostState::ALL[usize::from(self.byte()) % HostState::ALL.len()],
            target_closure: self.closure(),
            current_closure_at_dispatch: self.maybe(Self::closure),
            current_closure: self.maybe(Self::closure),
            dispatched_at: self.time(),
            dispatch_acked_at: self.maybe(Self::time),
            activation_started_at: self.maybe(Self::time),
            activation_completed_at: self.maybe(Self::time),
            soak_due_at: self.maybe(Self::time),
            last_event_seq: self.number(),
        }
    }
}

/// An agent without rollouts, and one that soaks on [`TARGET`].
static AGENTS: LazyLock<[AgentCore; 2]> = LazyLock::new(|| [running(), soaking()]);

fn rollout() -> RolloutId {
    "stable@01".parse().expect("a constant")
}

fn running() -> AgentCore {
    let config = AgentConfig::default();
    let mut agent = AgentCore::new(HOST.into(), config, SavedState::default());
    let started = Input::Started {
        current_closure: "a".into(),
    };
    agent.step(started, now());
    let reply = HeartbeatReply {
        received_at: now(),
        bootstrap_rollouts: Vec::new(),
    };
    let reply = Bounded::check(reply).expect("an empty reply is within its bounds");
    agent.step(Input::HeartbeatAnswered(reply), now());
    agent
}

fn soaking() -> AgentCore {
    let mut agent = running();
    let dispatch = Dispatch {
        hostname: HOST.into(),
        rollout_id: rollout(),
        target_closure: TARGET.into(),
        soak_due_at: now(),
        soak_minutes: Minutes::from_minutes(10),
        enqueued_at: now(),
    };
    let dispatch = Bounded::check(dispatch).expect("a dispatch of today is within its bounds");
    agent.step(Input::DispatchReceived(dispatch), now());
    let verified = Input::ReleaseVerified {
        rollout_id: rollout(),
        release: release(),
    };
    agent.step(verified, now());
    let started = Input::SwitchStarted {
        rollout_id: rollout(),
        method: "switch".to_owned(),
    };
    agent.step(started, now());
    let ended = Input::SwitchEnded {
        rollout_id: rollout(),
        outcome: SwitchOutcome::Completed {
            observed_closure: TARGET.into(),
            exit_code: 0,
        },
    };
    agent.step(ended, now());
    let state = agent.rollouts()[&rollout()].record.state;
    assert_eq!(state, HostState::Soaking);
    agent
}

fn release() -> SignedRelease {
    let fleet = json!({
        "schemaVersion": 1,
        "hosts": { HOST: { "system": "x86_64-linux", "tags": [], "channel": "stable",
                           "closureHash": TARGET, "pubkey": null } },
        "channels": { "stable": { "rolloutPolicy": "p", "reconcileIntervalMinutes": 30,
                                  "freshnessWindow": 1440, "signingIntervalMinutes": 30 } },
        "rolloutPolicies": { "p": { "strategy": "waves", "onHealthFailure": "rollback-and-halt",
                                    "waves": [ { "selector": { "all": true }, "soakMinutes": 10 } ] } },
    });
    let stamp = ReleaseStamp {
        signed_at: now(),
        commit: Some("01".to_owned()),
    };
    let built = build_release(fleet.to_string().as_bytes(), &stamp, &key());
    let built = built.unwrap_or_else(|error| panic!("{error:?}"));
    let verifier = Verifier::new(TrustFile::of(key().public()));
    let (fleet, rollouts) = (&built.bundle.fleet, &built.bundle.rollouts);
    let manifest = rollouts.values().next().expect("one channel");
    let manifest = verifier.manifest(&manifest.bytes, &manifest.signature, now());
    let fleet = verifier.fleet(&fleet.bytes, &fleet.signature, now());
    SignedRelease {
        manifest: manifest.expect("was just signed"),
        fleet: fleet.expect("was just signed"),
    }
}
