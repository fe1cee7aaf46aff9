//! Tests of accepted and refused dispatches.

use super::test_agent::*;
use crate::core::{Input, ReleaseFault};

fn refused_with(agent: &mut TestAgent, target_ref: &str, closure: &str, signed: i64) -> String {
    agent
        .verified(target_ref, closure, signed)
        .into_iter()
        .find(|name| name.starts_with("refused"))
        .unwrap_or_else(|| "followed".to_owned())
}

#[test]
fn a_dispatch_is_compared_with_the_signed_manifest() {
    for (closure, signed, hours, expected) in [
        ("b", 0, 0, "followed"),
        ("c", 0, 0, "refused other-target"),
        ("b", 0, 2, "refused too-old"),
    ] {
        let mut agent = TestAgent::running();
        agent.give(Input::DispatchReceived(dispatch("1", "b", 0)));
        agent.now = at(hours * 3600);
        assert_eq!(
            refused_with(&mut agent, "1", closure, signed),
            expected,
            "{closure} {hours}"
        );
        if expected != "followed" {
            assert!(agent.core.rollouts().is_empty());
        }
    }
}

#[test]
fn a_manifest_of_another_rollout_is_refused() {
    let mut agent = TestAgent::running();
    agent.give(Input::DispatchReceived(dispatch("1", "b", 0)));
    let names = agent.give(Input::ReleaseVerified {
        rollout_id: rollout("1"),
        release: release("2", "b", 0),
    });
    assert_eq!(names, ["refused other-rollout"]);
}

#[test]
fn a_manifest_that_does_not_list_the_host_is_refused() {
    let mut agent = TestAgent::running();
    agent.give(Input::DispatchReceived(dispatch("1", "b", 0)));
    let names = agent.give(Input::ReleaseVerified {
        rollout_id: rollout("1"),
        release: release_for("web-02", "1", "b", 0),
    });
    assert_eq!(names, ["refused not-listed"]);
}

#[test]
fn a_dispatch_for_another_host_is_refused() {
    let mut agent = TestAgent::running();
    let mut other = dispatched("1", "b", 0);
    other.hostname = "web-02".into();
    assert_eq!(
        agent.give(Input::DispatchReceived(bounded(other))),
        ["refused other-host"]
    );
}

#[test]
fn a_fleet_of_another_release_is_refused() {
    let mut agent = TestAgent::running();
    agent.give(Input::DispatchReceived(dispatch("1", "b", 0)));
    let mut mixed = release("1", "b", 0);
    mixed.fleet = release("2", "c", 0).fleet;
    let names = agent.give(Input::ReleaseVerified {
        rollout_id: rollout("1"),
        release: mixed,
    });
    assert_eq!(names, ["refused other-fleet"]);
}

#[test]
fn an_unrequested_manifest_is_ignored() {
    let mut agent = TestAgent::running();
    assert!(agent.verified("1", "b", 0).is_empty());
}

#[test]
fn an_older_release_is_not_followed_after_a_newer_one() {
    let mut agent = TestAgent::running();
    agent.give(Input::DispatchReceived(dispatch("2", "c", 10)));
    agent.verified("2", "c", 10);
    agent.give(Input::SwitchEnded {
        rollout_id: rollout("2"),
        outcome: completed("c"),
    });
    agent.give(Input::DispatchReceived(dispatch("1", "b", 20)));
    assert_eq!(refused_with(&mut agent, "1", "b", 0), "refused outdated");
}

#[test]
fn a_redelivered_dispatch_changes_nothing() {
    let mut agent = TestAgent::running();
    agent.switching();
    assert!(
        agent
            .give(Input::DispatchReceived(dispatch("1", "b", 0)))
            .is_empty()
    );
}

#[test]
fn a_newer_dispatch_waits_for_the_running_switch() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(Input::DispatchReceived(dispatch("2", "c", 10)));
    assert!(agent.verified("2", "c", 10).is_empty());
    let names = agent.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: completed("b"),
    });
    assert!(names.contains(&"Switch c".to_owned()), "{names:?}");
    let second = &agent.core.rollouts()[&rollout("2")].record;
    assert_eq!(second.current_closure_at_dispatch, Some("b".into()));
    assert!(agent.core.rollouts()[&rollout("1")].replaced);
}

#[test]
fn a_failed_fetch_is_retried() {
    let mut agent = TestAgent::running();
    agent.give(Input::DispatchReceived(dispatch("1", "b", 0)));
    let fault = |retryable| Input::ReleaseRefused {
        rollout_id: rollout("1"),
        fault: ReleaseFault {
            reason: "not-fetched".to_owned(),
            message: String::new(),
            retryable,
        },
    };
    assert!(agent.give(fault(true)).is_empty());
    assert_eq!(agent.after(1), ["Fetch stable@1"]);
    assert_eq!(agent.give(fault(false)), ["refused not-fetched"]);
    assert!(agent.after(100).is_empty());
}
