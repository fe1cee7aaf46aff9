//! The fold: what each entry needs and what it leads to.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::outcome::Opened;
use nixfleet_proto::{
    Accepted, Decision, Effect, Entry, EntryBody, Gate, HostEventBody, HostState, OnHealthFailure,
    OperatorCommand, Outcome, PlanAction, Position, ProbeMode, ProbeStatus, Reason, RollbackFault,
    RolloutEvent, RolloutState, StoredAt, Timestamp,
};

use crate::sample_records::{
    add, at, event, id, manifest_of, open, origin, pinned, planned, set, told,
};

/// A partition under test; minutes are those of the tests' time.
struct Fold {
    state: PartitionState,
    pinned: PinnedSet,
    seq: u64,
}

/// Hosts a (wave 0), b (wave 2), c (wave 2), and x (unstaged).
const HOSTS: [(&str, u32, bool); 4] = [
    ("a", 0, true),
    ("b", 2, true),
    ("c", 2, true),
    ("x", 0, false),
];

impl Fold {
    fn new(policy: OnHealthFailure) -> Self {
        let mut fold = Self {
            state: PartitionState::new(),
            pinned: set(pinned(policy, &HOSTS)),
            seq: 0,
        };
        fold.accept(planned(0, 1, PlanAction::Barrier {}));
        fold.accept(planned(0, 1, open("stable@4f", "m1")));
        fold
    }

    fn apply(&mut self, entry: Entry) -> Outcome {
        let stored_at = entry.received_at;
        self.apply_stored_at(stored_at, entry)
    }

    fn apply_stored_at(&mut self, stored_at: Timestamp, entry: Entry) -> Outcome {
        self.seq += 1;
        let position = Position {
            seq: self.seq,
            index: 0,
        };
        let stored_at = StoredAt::new(stored_at);
        self.state.apply(position, stored_at, &entry, &self.pinned)
    }

    fn accept(&mut self, entry: Entry) -> Accepted {
        match self.apply(entry.clone()).decision {
            Decision::Accepted(accepted) => *accepted,
            Decision::Rejected(rejection) => panic!("{entry:?}: {rejection}"),
        }
    }

    fn refuse(&mut self, entry: Entry) -> Reason {
        let before = self.state.clone();
        let reason = match self.apply(entry.clone()).decision {
            Decision::Accepted(_) => panic!("{entry:?} was accepted"),
            Decision::Rejected(rejection) => rejection.reason,
        };
        assert_eq!(self.state.rollouts(), before.rollouts());
        assert_eq!(self.state.quarantines(), before.quarantines());
        assert_eq!(self.state.leader_epoch(), before.leader_epoch());
        reason
    }

    fn plan(&mut self, action: PlanAction) -> Accepted {
        self.accept(planned(1, 1, action))
    }

    fn refuse_plan(&mut self, action: PlanAction) -> Reason {
        self.refuse(planned(1, 1, action))
    }

    /// Tells the next event of a host.
    fn tell(&mut self, host: &str, body: HostEventBody) -> Accepted {
        let rollout = &self.state.rollouts()[&id("stable@4f")];
        let seq = rollout.hosts[host].record.last_event_seq + 1;
        self.accept(told(1, "stable@4f", host, event(seq, body)))
    }

    fn state(&self) -> RolloutState {
        self.state.rollouts()[&id("stable@4f")].record.state
    }

    fn converge(&mut self, host: &str) -> Accepted {
        self.tell(host, ack());
        self.tell(host, completed(host));
        self.tell(host, topology());
        let record = &self.state.rollouts()[&id("stable@4f")].hosts[host].record;
        let (seq, due) = (record.last_event_seq + 1, record.soak_due_at.unwrap());
        let converged = HostEventBody::Converged {
            converged_at: due,
            current_closure: format!("target-{host}").as_str().into(),
        };
        let mut entry = told(1, "stable@4f", host, event(seq, converged));
        entry.received_at = due;
        self.accept(entry)
    }

    fn fail(&mut self, host: &str) -> Accepted {
        self.tell(host, ack());
        self.tell(
            host,
            HostEventBody::ActivationFailed {
                exit_code: 1,
                stderr_tail: String::new(),
                failed_at: at(1),
            },
        )
    }

    fn roll_back(&mut self, host: &str) -> Accepted {
        self.tell(
            host,
            HostEventBody::RollbackComplete {
                reverted_to_closure: "before".into(),
                exit_code: 0,
                completed_at: at(1),
            },
        )
    }
}

#[test]
fn a_rollback_that_will_not_come_fails_the_rollout() {
    let mut fold = Fold::new(OnHealthFailure::RollbackAndHalt);
    fold.fail("a");
    assert_eq!(fold.state(), RolloutState::Active, "a rollback is expected");
    let accepted = fold.tell(
        "a",
        HostEventBody::RollbackFailed {
            reason: RollbackFault::Impossible,
            detail: "no earlier closure is known".to_owned(),
            failed_at: at(1),
        },
    );
    assert_eq!(fold.state(), RolloutState::Failed);
    assert_eq!(accepted.hosts[0].state, HostState::Failed);
    assert_eq!(names(&accepted.events), ["HostStateChanged"]);
    fold.roll_back("a");
    assert_eq!(fold.state(), RolloutState::Reverted, "it came after all");
}

fn ack() -> HostEventBody {
    HostEventBody::DispatchAck {
        current_closure_at_dispatch: "before".into(),
        received_at: at(1),
    }
}

fn completed(host: &str) -> HostEventBody {
    HostEventBody::ActivationCompleted {
        observed_current_closure: format!("target-{host}").into(),
        exit_code: 0,
        completed_at: at(1),
    }
}

fn topology() -> HostEventBody {
    HostEventBody::ProbeTopologyDeclared {
        probes: vec![],
        declared_at: at(1),
    }
}

fn queue(host: &str) -> PlanAction {
    PlanAction::QueueDispatch {
        hostname: host.parse().unwrap(),
        rollout_id: id("stable@4f"),
        target_closure: format!("target-{host}").into(),
        soak_minutes: Default::default(),
    }
}

fn advance(from_wave: u32, to_wave: u32) -> PlanAction {
    PlanAction::AdvanceWave {
        rollout_id: id("stable@4f"),
        from_wave,
        to_wave,
    }
}

fn unchanged(host: &str) -> PlanAction {
    PlanAction::ConvergeUnchanged {
        hostname: host.parse().unwrap(),
        rollout_id: id("stable@4f"),
        current_closure: format!("target-{host}").into(),
    }
}

fn clearance(waived: &[&str]) -> Entry {
    let command = OperatorCommand::OperatorClearance {
        rollout_id: id("stable@4f"),
        reason: "repaired".to_owned(),
        waived_hosts: waived.iter().map(|name| name.parse().unwrap()).collect(),
    };
    Entry::new(
        at(1),
        EntryBody::Operator {
            command,
            origin: origin(),
        },
    )
}

fn clear_quarantine(closure: &str) -> Entry {
    let command = OperatorCommand::ClearQuarantine {
        channel: "stable".into(),
        closure_hash: closure.into(),
        reason: "fixed".to_owned(),
    };
    Entry::new(
        at(1),
        EntryBody::Operator {
            command,
            origin: origin(),
        },
    )
}

fn names(events: &[RolloutEvent]) -> Vec<&'static str> {
    events.iter().map(RolloutEvent::name).collect()
}

/// A state restored from rows must be the one that was folded, and these rows have no record.
#[test]
fn times_that_are_in_columns_only_count_microseconds_in_the_state_as_well() {
    let mut fold = Fold::new(OnHealthFailure::RollbackAndHalt);
    let exact = at(1) + TimeDelta::nanoseconds(123_456_789);
    let in_columns = at(1) + TimeDelta::microseconds(123_456);
    let apply = |fold: &mut Fold, entry: Entry| {
        fold.accept(Entry {
            received_at: exact,
            ..entry
        });
    };
    apply(&mut fold, planned(1, 1, queue("a")));
    let rollout = |fold: &Fold| fold.state.rollouts()[&id("stable@4f")].clone();
    let queued = rollout(&fold).hosts["a"].queued().unwrap();
    assert_eq!(queued.at, exact, "a dispatch has a record");
    fold.tell("a", ack());
    fold.tell("a", completed("a"));
    let probes = vec![ProbeDeclaration {
        probe_name: "http".into(),
        kind: "http".to_owned(),
        mode: ProbeMode::Enforce,
    }];
    let declared_at = at(1);
    fold.tell(
        "a",
        HostEventBody::ProbeTopologyDeclared {
            probes,
            declared_at,
        },
    );
    let failed = HostEventBody::ProbeResult {
        probe_name: "http".into(),
        mode: ProbeMode::Enforce,
        status: ProbeStatus::Fail,
        observed_at: exact,
        failure_reason: None,
        sub_results: None,
    };
    fold.tell("a", failed);
    let rollout = rollout(&fold);
    let (_, failures) = rollout.hosts["a"].probe_failures().next().unwrap();
    assert_eq!(failures.cause.at, in_columns);
    fold.fail("b");
    let reverted = HostEventBody::RollbackComplete {
        reverted_to_closure: "before".into(),
        exit_code: 0,
        completed_at: exact,
    };
    let seq = rollout.hosts["b"].record.last_event_seq + 3;
    apply(&mut fold, told(1, "stable@4f", "b", event(seq, reverted)));
    let quarantines = fold.state.quarantines().values();
    let times: Vec<_> = quarantines
        .flat_map(|closures| closures.values().map(|cause| cause.at))
        .collect();
    assert_eq!(times, [in_columns]);
}

#[test]
fn opening_is_one_outcome_that_names_the_manifest() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let accepted = fold.plan(open("stable@5b", "m1"));
    let opened = Opened {
        rollout_id: id("stable@5b"),
        manifest_hash: manifest_of("stable@5b", "m1"),
    };
    assert_eq!(accepted.opened, Some(opened));
    assert_eq!(accepted.hosts, []);
    assert_eq!(
        names(&accepted.events),
        ["RolloutOpened", "HostJoined", "SuccessorOpened"]
    );
    let states: Vec<_> = accepted
        .rollouts
        .iter()
        .map(|record| record.state)
        .collect();
    assert_eq!(states, [RolloutState::Active, RolloutState::Superseded]);
    let old = &fold.state.rollouts()[&id("stable@4f")].record;
    assert_eq!(old.superseded_by, Some(id("stable@5b")));
    assert_eq!(fold.state.rollouts()[&id("stable@5b")].hosts.len(), 4);
    assert_eq!(fold.refuse_plan(open("stable@5b", "m1")), Reason::Illegal);
    assert_eq!(fold.refuse_plan(open("stable@4f", "m1")), Reason::Illegal);
    assert_eq!(fold.refuse_plan(open("stable@6c", "m2")), Reason::Invariant);
}

#[test]
fn other_channels_are_not_superseded() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    fold.plan(open("stable-2@5b", "m1"));
    assert_eq!(fold.state(), RolloutState::Active);
}

#[test]
fn a_rollout_without_hosts_is_refused() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let empty = pinned(OnHealthFailure::Halt, &[]);
    add(&mut fold.pinned, "m2", empty);
    assert_eq!(fold.refuse_plan(open("stable@5b", "m2")), Reason::Invariant);
    let mut mixed = open("stable@5b", "m1");
    if let PlanAction::OpenRollout { channel, .. } = &mut mixed {
        *channel = "edge".into();
    }
    assert_eq!(fold.refuse_plan(mixed), Reason::Invariant);
}

#[test]
fn a_dispatch_needs_its_turn() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    fold.plan(queue("a"));
    assert_eq!(fold.refuse_plan(queue("a")), Reason::Illegal);
    assert_eq!(fold.refuse_plan(queue("b")), Reason::Invariant);
    assert_eq!(fold.refuse_plan(queue("x")), Reason::Invariant);
    assert_eq!(fold.refuse_plan(queue("nobody")), Reason::Unknown);
    let acknowledged = fold.tell("a", ack());
    assert!(acknowledged.effects.contains(&Effect::RemoveDispatch {
        rollout_id: id("stable@4f"),
        hostname: "a".into(),
    }));
    assert_eq!(fold.refuse_plan(queue("a")), Reason::Illegal);
}

#[test]
fn waves_are_passed_one_after_the_other() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    assert_eq!(fold.refuse_plan(advance(0, 2)), Reason::Invariant);
    let done = fold.converge("a");
    assert_eq!(names(&done.events), ["HostStateChanged", "WaveAdvanced"]);
    assert_eq!(fold.state(), RolloutState::Converging);
    assert_eq!(fold.refuse_plan(advance(0, 1)), Reason::Invariant);
    assert_eq!(fold.refuse_plan(advance(1, 2)), Reason::Invariant);
    fold.plan(advance(0, 2));
    assert_eq!(fold.state(), RolloutState::Active);
    fold.converge("b");
    assert_eq!(fold.state(), RolloutState::Active);
    let done = fold.converge("c");
    assert_eq!(names(&done.events), ["HostStateChanged", "RolloutTerminal"]);
    assert_eq!(fold.state(), RolloutState::Terminal);
    assert_eq!(fold.refuse_plan(queue("x")), Reason::Illegal);
    assert_eq!(fold.refuse_plan(advance(2, 3)), Reason::Illegal);
}

#[test]
fn a_deferred_host_finishes_its_wave_but_not_the_rollout() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    fold.tell("a", ack());
    let deferred = HostEventBody::ActivationDeferred {
        component: "kernel".to_owned(),
        deferred_at: at(1),
    };
    fold.tell("a", deferred);
    assert_eq!(fold.state(), RolloutState::Converging);
    fold.plan(advance(0, 2));
    fold.converge("b");
    fold.converge("c");
    assert_eq!(fold.state(), RolloutState::Active);
}

#[test]
fn a_failure_halts_and_a_clearance_finishes_the_wave() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    fold.accept(clearance(&["c"]));
    fold.fail("a");
    assert_eq!(fold.state(), RolloutState::Failed);
    assert_eq!(fold.refuse_plan(queue("a")), Reason::Illegal);
    assert_eq!(fold.refuse(clearance(&["nobody"])), Reason::Unknown);
    let cleared = fold.accept(clearance(&["a"]));
    assert_eq!(
        names(&cleared.events),
        ["OperatorClearance", "WaveAdvanced"]
    );
    assert_eq!(fold.state(), RolloutState::Converging);
    let waived = &fold.state.rollouts()[&id("stable@4f")].record.waived_hosts;
    assert_eq!(*waived, BTreeSet::from(["a".into(), "c".into()]));
    fold.plan(advance(0, 2));
    fold.converge("b");
    assert_eq!(fold.state(), RolloutState::Terminal);
}

#[test]
fn a_cleared_rollout_stays_halted_by_a_failed_host_that_is_not_waived() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    fold.fail("b");
    fold.accept(clearance(&[]));
    assert_eq!(fold.state(), RolloutState::Active);
    assert_eq!(fold.refuse_plan(queue("a")), Reason::Invariant);
    fold.accept(clearance(&["b"]));
    fold.plan(queue("a"));
}

#[test]
fn an_expected_rollback_halts_then_reverts_and_quarantines() {
    let mut fold = Fold::new(OnHealthFailure::RollbackAndHalt);
    fold.plan(queue("a"));
    fold.fail("b");
    assert_eq!(fold.state(), RolloutState::Active);
    assert_eq!(fold.refuse_plan(unchanged("a")), Reason::Invariant);
    let reverted = fold.roll_back("b");
    assert_eq!(fold.state(), RolloutState::Reverted);
    let cancel = Effect::CancelDispatches {
        rollout_id: id("stable@4f"),
    };
    assert!(reverted.effects.contains(&cancel));
    let rollout = &fold.state.rollouts()[&id("stable@4f")];
    assert!(!rollout.hosts["a"].is_queued());
    let closures = &fold.state.quarantines()["stable"];
    assert!(closures.contains_key("target-b"));
    fold.accept(clearance(&["b"]));
    fold.plan(queue("a"));
}

#[test]
fn a_quarantine_holds_until_it_is_cleared() {
    let mut fold = Fold::new(OnHealthFailure::RollbackAndHalt);
    fold.fail("a");
    fold.roll_back("a");
    fold.plan(open("stable@5b", "m1"));
    let again = PlanAction::QueueDispatch {
        hostname: "a".into(),
        rollout_id: id("stable@5b"),
        target_closure: "target-a".into(),
        soak_minutes: Default::default(),
    };
    assert_eq!(fold.refuse_plan(again.clone()), Reason::Invariant);
    fold.accept(clear_quarantine("target-a"));
    assert_eq!(fold.refuse(clear_quarantine("target-a")), Reason::Unknown);
    assert!(fold.state.quarantines().is_empty());
    fold.plan(again);
}

#[test]
fn unchanged_hosts_converge_and_stop_being_candidates() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let candidate = |closure: &str| {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: id("stable@4f"),
            hostname: "a".into(),
            current_closure: closure.into(),
        };
        Entry::new(at(1), body)
    };
    assert_eq!(fold.refuse(candidate("elsewhere")), Reason::Invariant);
    fold.accept(candidate("target-a"));
    fold.accept(candidate("elsewhere"));
    assert_eq!(fold.refuse(candidate("elsewhere")), Reason::Invariant);
    fold.accept(candidate("target-a"));
    assert_eq!(fold.refuse_plan(unchanged("b")), Reason::Invariant);
    let accepted = fold.plan(unchanged("a"));
    assert!(accepted.hosts[0].unchanged);
    assert!(accepted.effects.contains(&Effect::SetRecoveryCandidate {
        rollout_id: id("stable@4f"),
        hostname: "a".into(),
        current_closure: None,
    }));
    assert_eq!(fold.state(), RolloutState::Converging);
    assert_eq!(fold.refuse(candidate("target-a")), Reason::Illegal);
}

#[test]
fn soak_elapsed_completes_a_claim_at_fold_time() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    fold.tell("a", ack());
    fold.tell("a", completed("a"));
    let elapsed = PlanAction::SoakElapsed {
        hostname: "a".into(),
        rollout_id: id("stable@4f"),
    };
    let early = HostEventBody::Converged {
        converged_at: at(2),
        current_closure: "target-a".into(),
    };
    fold.tell("a", early);
    fold.tell("a", topology());
    assert_eq!(fold.refuse_plan(elapsed.clone()), Reason::Invariant);
    let accepted = fold.accept(planned(31, 1, elapsed));
    assert_eq!(accepted.hosts[0].converged_at, Some(at(31)));
}

#[test]
fn only_superseded_rollouts_expire_and_pruned_ones_accept_nothing() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let expired = PlanAction::RetentionExpired {
        rollout_id: id("stable@4f"),
    };
    fold.tell("b", ack());
    assert_eq!(fold.refuse_plan(expired.clone()), Reason::Illegal);
    fold.plan(open("stable@5b", "m1"));
    fold.tell("b", completed("b"));
    assert_eq!(
        fold.refuse(told(1, "stable@4f", "a", event(1, ack()))),
        Reason::Illegal
    );
    fold.plan(expired.clone());
    assert_eq!(fold.state(), RolloutState::Pruned);
    assert_eq!(fold.refuse_plan(expired), Reason::Illegal);
    assert_eq!(
        fold.refuse(told(1, "stable@4f", "b", event(9, topology()))),
        Reason::Illegal
    );
    let blocks = PlanAction::BlocksChanged {
        rollout_id: id("stable@4f"),
        wave: 0,
        gate: Gate::Halt,
        holds: vec![],
    };
    assert_eq!(fold.refuse_plan(blocks), Reason::Illegal);
}

#[test]
fn epochs_fence_older_leaders() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let mut refuse = |epoch, action| fold.refuse(planned(1, epoch, action));
    assert_eq!(refuse(0, queue("a")), Reason::Fenced);
    assert_eq!(refuse(2, queue("a")), Reason::Invariant);
    assert_eq!(refuse(1, PlanAction::Barrier {}), Reason::Fenced);
    assert_eq!(refuse(0, PlanAction::Barrier {}), Reason::Fenced);
    let accepted = fold.accept(planned(1, 7, PlanAction::Barrier {}));
    assert_eq!(accepted.leader_epoch, Some(7));
    assert_eq!(fold.state.leader_epoch(), 7);
    assert_eq!(fold.refuse_plan(queue("a")), Reason::Fenced);
    fold.accept(planned(1, 7, queue("a")));
}

#[test]
fn no_barrier_takes_the_epochs_of_later_leaders() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let day = 24 * 60 * 60 * 1_000;
    let latest = u64::try_from(at(0).timestamp_millis()).unwrap() + day;
    for epoch in [u64::MAX, u64::MAX >> 1, latest + 1] {
        let refused = fold.refuse(planned(0, epoch, PlanAction::Barrier {}));
        assert_eq!(refused, Reason::Invariant);
    }
    let outcome = fold.apply(planned(0, latest, PlanAction::Barrier {}));
    assert_eq!(outcome.decision.name(), "accepted");
}

#[test]
fn unknown_rollouts_and_hosts_are_told_apart_from_illegal() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let mut refuse = |rollout, host| fold.refuse(told(1, rollout, host, event(1, ack())));
    assert_eq!(refuse("stable@99", "a"), Reason::Unknown);
    assert_eq!(refuse("stable@4f", "nobody"), Reason::Unknown);
}

#[test]
fn fold_time_never_turns_back_and_rejections_move_it() {
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let outcome = fold.apply(told(50, "stable@99", "a", event(1, ack())));
    assert_eq!(outcome.at, at(50));
    let outcome = fold.apply(told(10, "stable@4f", "a", event(1, ack())));
    assert_eq!(outcome.at, at(50));
    assert_eq!(fold.state.clock(), Some(at(50)));
    let mut late = completed("a");
    if let HostEventBody::ActivationCompleted { completed_at, .. } = &mut late {
        *completed_at = at(50);
    }
    let accepted = fold.tell("a", late);
    assert_eq!(accepted.hosts[0].soak_due_at, Some(at(80)));
    assert_eq!(accepted.hosts[0].state, HostState::Soaking);
}

#[test]
fn a_wrong_clock_is_refused_and_does_not_move_the_time_of_the_fold() {
    let hour = TimeDelta::hours(1);
    let mut fold = Fold::new(OnHealthFailure::Halt);
    let misdated = [
        told(60 * 24 * 1_500, "stable@4f", "a", event(1, ack())),
        told(-60 * 24 * 365, "stable@4f", "a", event(1, ack())),
        planned(60 * 24 * 1_500, 9, PlanAction::Barrier {}),
        planned(60 * 24 * 1_500, 1, queue("a")),
    ];
    let before = fold.state.clone();
    for entry in misdated {
        let outcome = fold.apply_stored_at(at(1), entry);
        let Decision::Rejected(rejection) = outcome.decision else {
            panic!("{outcome:?}");
        };
        assert_eq!(rejection.reason, Reason::Clock);
        assert_eq!(outcome.at, at(0));
        assert_eq!(fold.state, before);
    }
    // The first entry of a log has no time before it.
    let mut first = PartitionState::new();
    let entry = planned(60, 1, PlanAction::Barrier {});
    let (position, stored_at) = (Position { seq: 1, index: 0 }, StoredAt::new(at(60) - hour));
    let outcome = first.apply(position, stored_at, &entry, &fold.pinned);
    assert_eq!(outcome.decision.name(), "clock");
    assert_eq!((outcome.at, first.clock()), (at(0), Some(at(0))));
}

#[test]
fn a_clock_may_be_off_by_a_minute_and_no_more() {
    let minute = TimeDelta::seconds(60);
    for (offset, expected) in [
        (minute, "accepted"),
        (-minute, "accepted"),
        (minute + TimeDelta::microseconds(1), "clock"),
        (-minute - TimeDelta::microseconds(1), "clock"),
        // The archive has microseconds, so that the fold compares no more.
        (TimeDelta::nanoseconds(60_000_000_999), "accepted"),
    ] {
        let mut fold = Fold::new(OnHealthFailure::Halt);
        let entry = planned(10, 2, PlanAction::Barrier {});
        let outcome = fold.apply_stored_at(at(10) + offset, entry);
        assert_eq!(outcome.decision.name(), expected, "{offset}");
    }
}
