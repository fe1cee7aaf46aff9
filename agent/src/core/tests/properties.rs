//! Properties that hold for all inputs in any order and with repetitions.

use std::collections::BTreeSet;

use nixfleet_proto::wire::EventRequest;
use nixfleet_proto::{ClosureHash, HostState, ProbeMode, ProbeStatus};
use proptest::prelude::*;

use super::test_agent::*;
use crate::core::{
    AgentCore, Command, DeliveryResult, Input, ProbeReading, ReleaseFault, RollbackOutcome,
    SavedState, SwitchOutcome,
};

/// The verified targets: one per release.
const TARGETS: [(&str, &str); 3] = [("1", "b"), ("2", "c"), ("3", "b")];

#[derive(Debug, Clone)]
enum Happening {
    Give(Input),
    Pass(i64),
    Crash(&'static str),
}

fn target() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(TARGETS.to_vec())
}

fn closure() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "evil"])
}

fn answer() -> impl Strategy<Value = DeliveryResult> {
    prop_oneof![
        4 => Just(DeliveryResult::Delivered),
        1 => Just(DeliveryResult::Unavailable { message: String::new() }),
        1 => Just(DeliveryResult::BatchRefused),
        1 => Just(DeliveryResult::Refused {
            status: 409,
            code: String::new(),
            message: String::new()
        }),
    ]
}

fn answers() -> impl Strategy<Value = Vec<(u64, DeliveryResult)>> {
    prop::collection::vec((1..30_u64, answer()), 1..4)
}

fn switch_outcome() -> impl Strategy<Value = SwitchOutcome> {
    prop_oneof![
        3 => closure().prop_map(completed),
        1 => Just(SwitchOutcome::Deferred { component: "kernel".to_owned() }),
        1 => Just(SwitchOutcome::Failed { exit_code: 1, stderr_tail: String::new() }),
    ]
}

fn host_state() -> impl Strategy<Value = HostState> {
    prop::sample::select(HostState::ALL.to_vec())
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![4 => of_dispatches(), 4 => of_the_machine(), 4 => of_the_control_plane()]
}

fn of_dispatches() -> impl Strategy<Value = Input> {
    prop_oneof![
        (target(), closure(), 0..100_i64).prop_map(|((target_ref, _), closure, seconds)| {
            Input::DispatchReceived(dispatch(target_ref, closure, seconds))
        }),
        target().prop_map(|(target_ref, closure)| {
            Input::DispatchReceived(dispatch(target_ref, closure, 0))
        }),
        (target(), target(), 0..50_i64).prop_map(|((asked, _), (target_ref, closure), signed)| {
            Input::ReleaseVerified {
                rollout_id: rollout(asked),
                release: release(target_ref, closure, signed),
            }
        }),
        target().prop_map(|(target_ref, closure)| Input::ReleaseVerified {
            rollout_id: rollout(target_ref),
            release: release(target_ref, closure, 0),
        }),
        (target(), any::<bool>()).prop_map(|((target_ref, _), retryable)| {
            Input::ReleaseRefused {
                rollout_id: rollout(target_ref),
                fault: ReleaseFault {
                    reason: "not-fetched".to_owned(),
                    message: String::new(),
                    retryable,
                },
            }
        }),
    ]
}

fn of_the_machine() -> impl Strategy<Value = Input> {
    let generations = 0..6_u64;
    prop_oneof![
        target().prop_map(|(target_ref, _)| Input::SwitchStarted {
            rollout_id: rollout(target_ref),
            method: "switch".to_owned(),
        }),
        (target(), switch_outcome()).prop_map(|((target_ref, _), outcome)| Input::SwitchEnded {
            rollout_id: rollout(target_ref),
            outcome,
        }),
        (target(), closure(), any::<bool>()).prop_map(|((target_ref, _), closure, took)| {
            Input::RollbackEnded {
                rollout_id: rollout(target_ref),
                outcome: if took {
                    RollbackOutcome::Completed {
                        observed_closure: closure.into(),
                        exit_code: 0,
                    }
                } else {
                    RollbackOutcome::Failed {
                        message: String::new(),
                    }
                },
            }
        }),
        (target(), generations.clone(), any::<bool>()).prop_map(
            |((target_ref, _), generation, readable)| Input::ProbesListed {
                rollout_id: rollout(target_ref),
                generation,
                probes: readable.then(|| vec![probe(ProbeMode::Enforce)]),
            }
        ),
        (target(), generations, any::<bool>()).prop_map(|((target_ref, _), generation, pass)| {
            Input::ProbeRan {
                rollout_id: rollout(target_ref),
                generation,
                probe_name: "http".into(),
                reading: ProbeReading {
                    status: if pass {
                        ProbeStatus::Pass
                    } else {
                        ProbeStatus::Fail
                    },
                    failure_reason: None,
                    sub_results: None,
                },
            }
        }),
    ]
}

fn of_the_control_plane() -> impl Strategy<Value = Input> {
    prop_oneof![
        (target(), answers()).prop_map(|((target_ref, _), answers)| Input::EventsAnswered {
            rollout_id: rollout(target_ref),
            answers,
        }),
        (target(), seqs(), host_state(), snapshot_closure()).prop_map(
            |((target_ref, target), seq, state, closure)| {
                answered(vec![foreign_snapshot(
                    (target_ref, target),
                    (seq, state, closure),
                )])
            }
        ),
        Just(Input::HeartbeatFailed),
    ]
}

fn seqs() -> impl Strategy<Value = u64> {
    let far = prop::sample::select(vec![1 << 62, (1 << 63) - (1 << 32), (1 << 63) - 1]);
    prop_oneof![6 => 0..30_u64, 1 => far]
}

/// Closures that the control plane makes up, besides true ones.
fn snapshot_closure() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "made-up"])
}

fn foreign_snapshot(
    (target_ref, target): (&str, &str),
    (seq, state, closure): (u64, HostState, &str),
) -> nixfleet_proto::wire::HostSnapshot {
    nixfleet_proto::wire::HostSnapshot {
        rollout_id: rollout(target_ref),
        hostname: "web-01".into(),
        channel: "stable".into(),
        state,
        target_closure: target.into(),
        current_closure_at_dispatch: Some(closure.into()),
        current_closure: Some(closure.into()),
        dispatched_at: at(0),
        dispatch_acked_at: None,
        activation_started_at: None,
        activation_completed_at: None,
        soak_due_at: Some(at(60)),
        last_event_seq: seq,
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => input().prop_map(Happening::Give),
        3 => (1..200_i64).prop_map(Happening::Pass),
        1 => closure().prop_map(Happening::Crash),
    ]
}

/// The closure that the machine reports with an input.
fn observed_by(input: &Input) -> Option<&ClosureHash> {
    match input {
        Input::Started {
            current_closure: closure,
        }
        | Input::MachineObserved {
            current_closure: closure,
        }
        | Input::SwitchEnded {
            outcome:
                SwitchOutcome::Completed {
                    observed_closure: closure,
                    ..
                },
            ..
        }
        | Input::RollbackEnded {
            outcome:
                RollbackOutcome::Completed {
                    observed_closure: closure,
                    ..
                },
            ..
        } => Some(closure),
        Input::SwitchEnded { .. }
        | Input::RollbackEnded { .. }
        | Input::DispatchReceived(_)
        | Input::ReleaseVerified { .. }
        | Input::ReleaseRefused { .. }
        | Input::SwitchStarted { .. }
        | Input::ProbesListed { .. }
        | Input::ProbeRan { .. }
        | Input::EventsAnswered { .. }
        | Input::HeartbeatAnswered(_)
        | Input::HeartbeatFailed
        | Input::Tick => None,
    }
}

/// Observes one core and checks each of its commands.
struct Watcher {
    agent: TestAgent,
    highest: std::collections::BTreeMap<nixfleet_proto::RolloutId, u64>,
    sent: BTreeSet<(nixfleet_proto::RolloutId, u64, String)>,
    backlog: Vec<Input>,
    /// Closures that the machine reported.
    ran: BTreeSet<ClosureHash>,
}

impl Watcher {
    fn new() -> Self {
        Self {
            agent: TestAgent::running(),
            highest: Default::default(),
            sent: BTreeSet::new(),
            backlog: Vec::new(),
            ran: BTreeSet::from(["a".into()]),
        }
    }

    fn give(&mut self, input: Input) {
        if let Some(closure) = observed_by(&input) {
            self.ran.insert(closure.clone());
        }
        let commands = self.agent.core.step(input, self.agent.now);
        for command in commands {
            self.check(command);
        }
        for (id, rollout) in self.agent.core.rollouts() {
            let highest = self.highest.entry(id.clone()).or_default();
            let seq = rollout.record.last_event_seq;
            assert!(seq >= *highest, "{id} decreased from {highest} to {seq}");
            *highest = seq;
        }
    }

    fn check(&mut self, command: Command) {
        match command {
            Command::Switch {
                rollout_id,
                closure,
            } => {
                let closure_hash = closure.closure_hash();
                let listed = TARGETS.iter().any(|(target_ref, target)| {
                    rollout(target_ref) == rollout_id && closure_hash.as_str() == *target
                });
                assert!(listed, "{rollout_id} never names {closure_hash}");
                // Sometimes the switch succeeds.
                self.backlog.push(Input::SwitchStarted {
                    rollout_id: rollout_id.clone(),
                    method: "switch".to_owned(),
                });
                self.backlog.push(Input::SwitchEnded {
                    rollout_id,
                    outcome: completed(closure_hash.as_str()),
                });
            }
            Command::Rollback { closure, .. } => {
                let closure = closure.closure_hash();
                assert!(self.ran.contains(closure), "{closure} never ran here");
            }
            Command::Save(journal) => {
                let id = journal.record.rollout_id.clone();
                assert!(journal.seq_floor < 1 << 63, "{}", journal.seq_floor);
                assert!(journal.record.last_event_seq < 1 << 63);
                self.agent.saved.insert(id, *journal);
            }
            Command::Remember(memory) => self.agent.memory = *memory,
            Command::Forget { rollout_id } => {
                self.agent.saved.remove(&rollout_id);
            }
            Command::Send(requests) => self.check_request(&requests),
            Command::Listen
            | Command::FetchRelease { .. }
            | Command::ListProbes { .. }
            | Command::RunProbe { .. }
            | Command::Heartbeat(_)
            | Command::Notify(_) => {}
        }
    }

    fn check_request(&mut self, requests: &[EventRequest]) {
        let rollout_id = requests[0].rollout_id.clone();
        let seqs: Vec<u64> = requests.iter().map(|request| request.event.seq).collect();
        assert!(seqs.is_sorted(), "{seqs:?}");
        for request in requests {
            assert_eq!(request.rollout_id, rollout_id);
            let seq = request.event.seq;
            let text = serde_json::to_string(&request.event).unwrap();
            let other = self
                .sent
                .iter()
                .find(|(id, sent, body)| (id, sent) == (&rollout_id, &seq) && *body != text);
            assert!(other.is_none(), "{seq} was given to {other:?} and {text}");
            self.sent.insert((rollout_id.clone(), seq, text));
        }
        self.backlog.push(Input::EventsAnswered {
            rollout_id,
            answers: seqs
                .iter()
                .map(|seq| (*seq, DeliveryResult::Delivered))
                .collect(),
        });
    }

    fn crash(&mut self, running: &str) {
        let kept = SavedState {
            journals: self.agent.saved.values().cloned().collect(),
            memory: self.agent.memory.clone(),
        };
        self.agent.core = AgentCore::new("web-01".into(), config(), kept);
        // A crash may lose events that were not durable, but never reuses a sequence.
        self.highest.clear();
        self.backlog.clear();
        self.give(Input::Started {
            current_closure: running.into(),
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_order_of_inputs_decreases_a_sequence_or_activates_a_closure_without_manifest(
        happenings in prop::collection::vec((happening(), any::<bool>()), 1..60)
    ) {
        let mut watcher = Watcher::new();
        for (happening, goes_on) in happenings {
            match happening {
                Happening::Give(input) => {
                    watcher.give(input.clone());
                    if goes_on {
                        watcher.give(input);
                    }
                }
                Happening::Pass(seconds) => {
                    watcher.agent.now += chrono::TimeDelta::seconds(seconds);
                    watcher.give(Input::Tick);
                }
                Happening::Crash(running) => watcher.crash(running),
            }
            if goes_on && !watcher.backlog.is_empty() {
                let next = watcher.backlog.remove(0);
                watcher.give(next);
            }
        }
    }
}
