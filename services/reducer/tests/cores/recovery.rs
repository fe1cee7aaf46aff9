//! Heartbeats that prove something.

use nixfleet_proto::wire::{HeartbeatRequest, OwnerHeartbeat};
use nixfleet_proto::{EntryBody, HostState, Position};
use nixfleet_reducer::{Asked, Owner, Progress, Recovery, Step};

use crate::world::{World, acknowledged, at, id, opening};

/// Host a runs its target, which nobody told.
fn beat(host: &str) -> OwnerHeartbeat {
    OwnerHeartbeat {
        request: HeartbeatRequest {
            hostname: host.into(),
            at: at(9),
            rollout_id: None,
            current_closure: Some(format!("target-{host}").into()),
        },
        channel: "stable".into(),
        received_at: at(9),
    }
}

fn world() -> (World, Owner) {
    let mut world = World::of([opening("stable@4f"), acknowledged("stable@4f", "a")]);
    let owner = world.work();
    (world, owner)
}

#[test]
fn two_heartbeats_of_a_host_recover_once_and_are_answered_when_it_is_folded() {
    let (mut world, mut owner) = world();
    let mut recovery = Recovery::new(10, owner.next());
    for waiter in [1, 2] {
        let asked = recovery.ask(owner.state(), beat("a"), waiter);
        assert_eq!(asked, Asked::Waits);
    }
    assert_eq!(recovery.step(), Some(Step::Look));
    assert_eq!(recovery.step(), None);
    assert!(recovery.folded(owner.state(), owner.next()).is_empty());
    // What is on its way is folded first.
    recovery.proceed(Progress::Tail(4));
    assert!(recovery.folded(owner.state(), owner.next()).is_empty());
    assert_eq!(recovery.step(), None);
    world.input.push(acknowledged("stable@4f", "b"));
    world.go_on(&mut owner);
    assert!(recovery.folded(owner.state(), owner.next()).is_empty());

    // Only the first heartbeat asked in this round.
    let Some(Step::Append(entries)) = recovery.step() else {
        panic!("nothing to append");
    };
    assert_eq!(entries.len(), 1);
    assert!(matches!(&entries[0].body, EntryBody::HostEvent { event, .. } if event.seq == 1));
    recovery.proceed(Progress::Appended(vec![Position { seq: 5, index: 0 }]));
    assert!(recovery.folded(owner.state(), owner.next()).is_empty());
    world.input.extend(entries);
    world.go_on(&mut owner);
    let hosts = &owner.state().rollouts()[&id("stable@4f")].hosts;
    assert_eq!(hosts["a"].record.state, HostState::Soaking);
    let answers = recovery.folded(owner.state(), owner.next());
    assert_eq!(answers.iter().map(|(_, w)| *w).collect::<Vec<_>>(), [1]);

    // The second finds in its own round that nothing is missed any more.
    assert_eq!(recovery.step(), Some(Step::Look));
    recovery.proceed(Progress::Tail(5));
    let answers = recovery.folded(owner.state(), owner.next());
    assert_eq!(answers.iter().map(|(_, w)| *w).collect::<Vec<_>>(), [2]);
    assert_eq!(recovery.step(), None);
}

#[test]
fn heartbeats_of_one_round_prove_the_same_once() {
    let (_, owner) = world();
    let mut recovery = Recovery::new(10, owner.next());
    let _ = recovery.ask(owner.state(), beat("a"), 0);
    // Two more come while the first round looks.
    let _ = recovery.ask(owner.state(), beat("a"), 1);
    let _ = recovery.ask(owner.state(), beat("a"), 2);
    assert_eq!(recovery.step(), Some(Step::Look));
    assert_eq!(recovery.proceed(Progress::Failed), [0]);
    assert_eq!(recovery.step(), Some(Step::Look));
    recovery.proceed(Progress::Tail(3));
    recovery.folded(owner.state(), owner.next());
    let Some(Step::Append(entries)) = recovery.step() else {
        panic!("nothing to append");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(recovery.proceed(Progress::Failed), [1, 2]);
}

#[test]
fn what_proves_nothing_is_answered_at_once_and_too_many_are_not() {
    let (_, owner) = world();
    let mut recovery = Recovery::new(1, owner.next());
    let calm = OwnerHeartbeat {
        request: HeartbeatRequest {
            current_closure: Some("before".into()),
            ..beat("a").request
        },
        ..beat("a")
    };
    let asked = recovery.ask(owner.state(), calm, 0);
    assert!(matches!(asked, Asked::Answer(_, 0)), "{asked:?}");
    let _ = recovery.ask(owner.state(), beat("a"), 1);
    assert_eq!(recovery.ask(owner.state(), beat("a"), 2), Asked::Waits);
    assert_eq!(recovery.ask(owner.state(), beat("a"), 3), Asked::NoRoom(3));
}

#[test]
fn nothing_is_recovered_in_a_log_that_ends_before_what_was_folded() {
    let (_, owner) = world();
    let mut recovery = Recovery::new(10, owner.next());
    let folded = owner.next().seq - 1;
    for (tail, given_up) in [(folded - 1, 1), (folded, 0)] {
        let asked = recovery.ask(owner.state(), beat("a"), 0);
        assert_eq!(asked, Asked::Waits);
        assert_eq!(recovery.step(), Some(Step::Look));
        assert_eq!(recovery.proceed(Progress::Tail(tail)).len(), given_up);
        recovery.folded(owner.state(), owner.next());
        let appends = matches!(recovery.step(), Some(Step::Append(_)));
        assert_eq!(appends, given_up == 0);
    }
}
