//! An agent core, a clock and signed releases for tests.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::TimeDelta;
use nixfleet_proto::bounded_reply::{Bounded, Reply};
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::wire::{Dispatch, HeartbeatReply, HostSnapshot};
use nixfleet_proto::{Minutes, ProbeMode, ProbeStatus, RolloutId, Timestamp};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, ReleaseStamp, TrustFile, build_release};

use crate::agent_memory::AgentMemory;
use crate::artifact_verifier::Verifier;
use crate::core::{
    AgentConfig, AgentCore, Command, DeliveryResult, Input, Journal, Notification, ProbeReading,
    SavedState, SwitchOutcome,
};
use crate::release_check::SignedRelease;

/// A core with what survives its crashes.
pub struct TestAgent {
    pub core: AgentCore,
    pub now: Timestamp,
    pub saved: BTreeMap<RolloutId, Journal>,
    pub memory: AgentMemory,
    /// The closure that the machine runs.
    pub running: String,
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_777_629_600 + seconds, 0).unwrap()
}

/// The key every test release is signed with.
pub static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_secret(Algorithm::Ed25519, &[7; 32]).unwrap());

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let trust = TrustFile::of(KEY.public());
    Verifier::new(trust)
});

pub fn rollout(target_ref: &str) -> RolloutId {
    format!("stable@{target_ref}").parse().unwrap()
}

/// A release of commit `target_ref` with `closure` as the target of `web-01`, signed at `seconds`.
pub fn release(target_ref: &str, closure: &str, seconds: i64) -> SignedRelease {
    release_for("web-01", target_ref, closure, seconds)
}

/// A release for another host.
pub fn release_for(host: &str, target_ref: &str, closure: &str, seconds: i64) -> SignedRelease {
    let fleet = serde_json::json!({
        "schemaVersion": 1,
        "hosts": { host: { "system": "x86_64-linux", "tags": [], "channel": "stable",
                               "closureHash": closure, "pubkey": null } },
        "channels": { "stable": { "rolloutPolicy": "p", "reconcileIntervalMinutes": 30,
                                  "freshnessWindow": 1440, "signingIntervalMinutes": 30 } },
        "rolloutPolicies": { "p": { "strategy": "waves", "onHealthFailure": "rollback-and-halt",
                                    "waves": [ { "selector": { "all": true }, "soakMinutes": 1 } ] } },
    });
    let stamp = ReleaseStamp {
        signed_at: at(seconds),
        commit: Some(target_ref.to_owned()),
    };
    let built = build_release(fleet.to_string().as_bytes(), &stamp, &KEY)
        .map_err(|error| error.faults)
        .unwrap();
    let manifest = built.bundle.rollouts.values().next().unwrap();
    let now = at(seconds);
    let fleet = &built.bundle.fleet;
    SignedRelease {
        manifest: VERIFIER
            .manifest(&manifest.bytes, &manifest.signature, now)
            .unwrap(),
        fleet: VERIFIER.fleet(&fleet.bytes, &fleet.signature, now).unwrap(),
    }
}

/// A dispatch as it arrives.
pub fn dispatch(target_ref: &str, closure: &str, seconds: i64) -> Bounded<Dispatch> {
    bounded(dispatched(target_ref, closure, seconds))
}

pub fn dispatched(target_ref: &str, closure: &str, seconds: i64) -> Dispatch {
    Dispatch {
        hostname: "web-01".into(),
        rollout_id: rollout(target_ref),
        target_closure: closure.into(),
        soak_due_at: at(seconds),
        soak_minutes: Minutes::from_minutes(1),
        enqueued_at: at(seconds),
    }
}

pub fn probe(mode: ProbeMode) -> ProbeDeclaration {
    ProbeDeclaration {
        probe_name: "http".into(),
        kind: "http".to_owned(),
        mode,
    }
}

pub fn completed(closure: &str) -> SwitchOutcome {
    SwitchOutcome::Completed {
        observed_closure: closure.into(),
        exit_code: 0,
    }
}

/// Configuration with short, exact timeouts: no settling, and retry jitter below a second.
pub fn config() -> AgentConfig {
    AgentConfig {
        heartbeat_settle: TimeDelta::zero(),
        heartbeat_interval: TimeDelta::seconds(1_000),
        probe_interval: TimeDelta::seconds(10),
        sustained_failure: TimeDelta::seconds(30),
        ..AgentConfig::default()
    }
}

impl TestAgent {
    /// An agent that was started and greeted, running closure `a`.
    pub fn running() -> Self {
        let mut agent = Self::crashed(BTreeMap::new(), "a");
        agent.give(answered(Vec::new()));
        agent
    }

    /// An agent that just started with what an earlier one saved.
    pub fn crashed(saved: BTreeMap<RolloutId, Journal>, running: &str) -> Self {
        let journals = saved.values().cloned().collect();
        let memory = AgentMemory::default();
        let kept = SavedState {
            journals,
            memory: memory.clone(),
        };
        let mut agent = Self {
            core: AgentCore::new("web-01".into(), config(), kept),
            now: at(0),
            saved,
            memory,
            running: running.to_owned(),
        };
        agent.give(Input::Started {
            current_closure: running.into(),
        });
        agent
    }

    /// Restarts the agent from what it saved.
    pub fn crash(self, running: &str) -> Self {
        let now = self.now;
        let kept = SavedState {
            journals: self.saved.values().cloned().collect(),
            memory: self.memory.clone(),
        };
        Self {
            core: AgentCore::new("web-01".into(), config(), kept),
            now,
            saved: self.saved,
            memory: self.memory,
            running: running.to_owned(),
        }
    }

    /// Steps the core and returns the names of the commands, in order.
    pub fn give(&mut self, input: Input) -> Vec<String> {
        let commands = self.core.step(input, self.now);
        for command in &commands {
            if let Command::Save(journal) = command {
                let id = journal.record.rollout_id.clone();
                self.saved.insert(id, (**journal).clone());
            }
            if let Command::Remember(memory) = command {
                self.memory = (**memory).clone();
            }
        }
        let commands = commands.iter();
        let told = commands.filter(|command| !matches!(command, Command::Remember(_)));
        told.map(name).collect()
    }

    /// Advances the clock and returns the names of the commands of the tick.
    pub fn after(&mut self, seconds: i64) -> Vec<String> {
        self.now += TimeDelta::seconds(seconds);
        self.give(Input::Tick)
    }

    /// Delivers the request that begins with this event.
    pub fn answer(&mut self, target_ref: &str, seq: u64) -> Vec<String> {
        let flight = self.in_flight_seqs(target_ref);
        let flight = if flight.first() == Some(&seq) {
            flight
        } else {
            vec![seq]
        };
        self.give(Input::EventsAnswered {
            rollout_id: rollout(target_ref),
            answers: flight
                .iter()
                .map(|seq| (*seq, DeliveryResult::Delivered))
                .collect(),
        })
    }

    fn in_flight_seqs(&self, target_ref: &str) -> Vec<u64> {
        let rollout = self.core.rollouts().get(&rollout(target_ref));
        rollout.map_or_else(Vec::new, |rollout| {
            rollout.outbox.in_flight_seqs().collect()
        })
    }

    pub fn verified(&mut self, target_ref: &str, closure: &str, signed: i64) -> Vec<String> {
        self.give(Input::ReleaseVerified {
            rollout_id: rollout(target_ref),
            release: release(target_ref, closure, signed),
        })
    }

    pub fn list(&mut self, target_ref: &str, probes: Option<Vec<ProbeDeclaration>>) -> Vec<String> {
        let generation = self.core.rollouts()[&rollout(target_ref)]
            .probes
            .generation();
        self.give(Input::ProbesListed {
            rollout_id: rollout(target_ref),
            generation,
            probes,
        })
    }

    pub fn probed(&mut self, target_ref: &str, status: ProbeStatus) -> Vec<String> {
        let generation = self.core.rollouts()[&rollout(target_ref)]
            .probes
            .generation();
        self.give(Input::ProbeRan {
            rollout_id: rollout(target_ref),
            generation,
            probe_name: "http".into(),
            reading: ProbeReading {
                status,
                failure_reason: None,
                sub_results: None,
            },
        })
    }

    /// Acknowledges events until none is sent.
    pub fn drain(&mut self, target_ref: &str) {
        while let Some(seq) = self.in_flight_seqs(target_ref).first() {
            self.answer(target_ref, *seq);
        }
    }

    /// Dispatched to closure `b` by commit `1`, acknowledged and switching.
    pub fn switching(&mut self) {
        self.give(Input::DispatchReceived(dispatch("1", "b", 0)));
        self.verified("1", "b", 0);
        self.give(Input::SwitchStarted {
            rollout_id: rollout("1"),
            method: "switch".to_owned(),
        });
    }

    /// An agent after a successful switch, with probes as declared and no unacknowledged events.
    pub fn soaking(&mut self, probes: Vec<ProbeDeclaration>) {
        self.switching();
        self.give(Input::SwitchEnded {
            rollout_id: rollout("1"),
            outcome: completed("b"),
        });
        self.running = "b".to_owned();
        self.list("1", Some(probes));
        self.drain("1");
    }
}

/// A reply to a heartbeat with these snapshots.
pub fn answered(snapshots: Vec<HostSnapshot>) -> Input {
    Input::HeartbeatAnswered(bounded(HeartbeatReply {
        received_at: at(0),
        bootstrap_rollouts: snapshots,
    }))
}

pub fn bounded<T: Reply + std::fmt::Debug>(reply: T) -> Bounded<T> {
    Bounded::check(reply).unwrap()
}

fn name(command: &Command) -> String {
    match command {
        Command::Save(journal) => format!(
            "Save {} waiting {}",
            journal.record.state.name(),
            journal.waiting.len()
        ),
        Command::Remember(_) => "Remember".to_owned(),
        Command::Forget { rollout_id } => format!("Forget {rollout_id}"),
        Command::Listen => "Listen".to_owned(),
        Command::FetchRelease { rollout_id } => format!("Fetch {rollout_id}"),
        Command::Switch { closure, .. } => format!("Switch {}", closure.closure_hash()),
        Command::Rollback { closure, .. } => format!("Rollback {}", closure.closure_hash()),
        Command::ListProbes { .. } => "ListProbes".to_owned(),
        Command::RunProbe { probe_name, .. } => format!("RunProbe {probe_name}"),
        Command::Send(requests) => {
            let events = requests.iter().map(|request| &request.event);
            let names = events.map(|event| format!("{} {}", event.seq, event.body.name()));
            format!("Send {}", names.collect::<Vec<_>>().join(", "))
        }
        Command::Heartbeat(request) => match &request.current_closure {
            Some(closure) => format!("Heartbeat {closure}"),
            None => "Heartbeat".to_owned(),
        },
        Command::Notify(note) => match note {
            Notification::DispatchHeld { latency_ms, .. } => format!("held after {latency_ms} ms"),
            Notification::Refused { reason, .. } => format!("refused {reason}"),
            Notification::Transition { from, to, .. } => format!("{} > {}", from.name(), to.name()),
            Notification::Recovered { from, to, .. } => format!("{} >> {}", from.name(), to.name()),
            Notification::Delivered { seq, .. } => format!("delivered {seq}"),
            Notification::EventRefused { seq, status, .. } => format!("dead {seq} {status}"),
            Notification::Dropped { seq, .. } => format!("dropped {seq}"),
            Notification::Unexpected { kind, .. } => format!("unexpected {kind}"),
            Notification::OutOfSequences { .. } => "out of sequences".to_owned(),
            Notification::RollbackFailed { .. } => "rollback failed".to_owned(),
        },
    }
}
