//! Queries of the services.

use nixfleet_proto::wire::LivenessReport;
use nixfleet_proto::{ChannelName, ClosureHash, Gate, Hold, HostState, RolloutState};
use nixfleet_store::Membership;
use nixfleet_store::{
    BlockChange, DispatchChange, FailureSet, RolloutChange, RolloutFilter, TurnRows,
};

use super::sample_rollouts::*;

#[tokio::test]
async fn hosts_are_paged_by_key_over_current_rollouts() {
    let (store, _database) = store("store_pages").await;
    let (old, new) = (rollout_id("stable@01"), rollout_id("stable@02"));
    let mut rows = opening(&old, 3);
    rows.opened.push(opened(&new, 3));
    let mut record = rollout_record(&old);
    record.state = RolloutState::Superseded;
    record.superseded_by = Some(new.clone());
    let change = RolloutChange {
        record,
        stamp: stamp(2),
    };
    rows.rollouts.insert(old.clone(), change);
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();

    let first = store.hosts(None, 2, None).await.unwrap();
    let last = first.last().unwrap();
    let after = (last.record.rollout_id.clone(), last.record.hostname.clone());
    let second = store.hosts(Some(&after), 2, None).await.unwrap();
    let names: Vec<_> = first
        .iter()
        .chain(&second)
        .map(|host| host.record.hostname.clone())
        .collect();
    assert_eq!(names, [hostname(0), hostname(1), hostname(2)]);
    assert!(first.iter().all(|host| host.record.rollout_id == new));
    let of_channels = async |names: &[ChannelName]| {
        let channels = names.iter().cloned().collect();
        store.hosts(None, 9, Some(&channels)).await.unwrap().len()
    };
    assert_eq!(of_channels(&[new.channel()]).await, 3);
    assert_eq!(of_channels(&["other".into()]).await, 0);
    assert_eq!(first[1].wave, 1);
    assert_eq!(first[0].pending_closure(), Some(&ClosureHash::from("new")));

    let page = store
        .rollout_hosts(&old, Some(&hostname(0)), 10)
        .await
        .unwrap();
    assert_eq!(page.len(), 2);
    let current = store.rollouts(RolloutFilter::Current).await.unwrap();
    assert_eq!(current.len(), 1);
    assert_eq!((current[0].host_count, current[0].wave_count), (3, 2));
    assert_eq!(store.rollouts(RolloutFilter::All).await.unwrap().len(), 2);
    let lifecycle = store.rollout_lifecycle(&old).await.unwrap().unwrap();
    assert_eq!(lifecycle.record.superseded_by, Some(new.clone()));
    assert_eq!(
        store.rollout_lifecycle(&rollout_id("x@0")).await.unwrap(),
        None
    );
    let counts = store
        .state_counts(std::slice::from_ref(&new))
        .await
        .unwrap();
    assert_eq!(counts[&new][&HostState::Pending], 3);
    let states = store
        .host_states(std::slice::from_ref(&new), 2)
        .await
        .unwrap();
    assert_eq!(states[&new].len(), 2);
}

#[tokio::test]
async fn holds_are_shown_for_waiting_hosts_only() {
    let (store, _database) = store("store_deferrals").await;
    let id = rollout_id("stable@01");
    let mut rows = opening(&id, 6);
    let hold = |hosts: Option<Vec<u32>>| BlockChange {
        holds: vec![Hold {
            reason: "because".to_owned(),
            hosts: hosts.map(|hosts| hosts.into_iter().map(hostname).collect()),
            cause: Some(stamp(1).position),
        }],
        stamp: stamp(2),
    };
    rows.blocks
        .insert((id.clone(), 0, Gate::HostEdge), hold(Some(vec![0, 2])));
    rows.blocks
        .insert((id.clone(), 1, Gate::WavePromotion), hold(None));
    let dispatch = DispatchChange {
        target_closure: ClosureHash::from("new"),
        soak_minutes: Default::default(),
        stamp: stamp(3),
    };
    rows.dispatches
        .insert((id.clone(), hostname(2)), Some(dispatch));
    let mut converged = pending(&id, 1);
    converged.state = HostState::Converged;
    rows.hosts = host_change(converged, 3).hosts;
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();

    let deferrals = store.deferrals(100, |_| true).await.unwrap();
    let held: Vec<_> = deferrals
        .iter()
        .map(|d| (d.hostname.clone(), d.gate))
        .collect();
    assert_eq!(
        held,
        [
            (hostname(0), Gate::HostEdge),
            (hostname(3), Gate::WavePromotion),
            (hostname(5), Gate::WavePromotion)
        ]
    );
    assert_eq!(store.deferrals(2, |_| true).await.unwrap().len(), 2);
    assert!(store.deferrals(2, |_| false).await.unwrap().is_empty());
    let detail = store.host_detail(&hostname(3)).await.unwrap();
    assert_eq!(detail.blocks.len(), 1);
    assert_eq!(detail.rollouts.len(), 1);
    assert!(
        store
            .host_detail(&hostname(1))
            .await
            .unwrap()
            .blocks
            .is_empty()
    );

    let board = store.gateway_snapshot(partition()).await.unwrap();
    assert_eq!(board.cursors, [(partition(), cursor(1))]);
    assert_eq!(board.dispatches.len(), 1);
    assert_eq!(board.dispatches[0].enqueued_at, at(3));
    assert_eq!(board.dispatches[0].traceparent, stamp(3).traceparent);
}

#[tokio::test]
async fn a_host_view_joins_the_side_tables_of_the_record() {
    let (store, _database) = store("store_view").await;
    let id = rollout_id("stable@01");
    let mut rows = opening(&id, 1);
    let control = |name: &str| nixfleet_proto::host::FailedControl {
        control_id: Some(name.to_owned()),
        framework: Some("f".to_owned()),
    };
    let failures = vec![control("a"), control("b"), Default::default()];
    let set = FailureSet {
        failures,
        observed_at: at(1),
        stamp: stamp(1),
    };
    rows.probe_failures
        .insert((id.clone(), hostname(0), "p".into()), set);
    rows.quarantines_inserted
        .insert(("stable".into(), "new".into()), stamp(1));
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    let report = |seconds, closure: &str| LivenessReport {
        hostname: hostname(0),
        channel: "stable".into(),
        last_seen_at: at(seconds),
        current_closure: Some(closure.into()),
    };
    let changed = store
        .upsert_liveness(&[report(5, "b"), report(3, "a")])
        .await
        .unwrap();
    assert_eq!(changed, 1);
    assert_eq!(store.upsert_liveness(&[report(4, "old")]).await.unwrap(), 0);

    let hosts = store.hosts(None, 10, None).await.unwrap();
    assert_eq!(
        (hosts[0].compliance_failures, hosts[0].health_failures),
        (2, 1)
    );
    assert_eq!(hosts[0].quarantined_closure(), Some(&"new".into()));
    assert_eq!(hosts[0].seen_closure, Some("b".into()));
    let seen = hosts[0].last_seen_at.unwrap();
    assert_eq!(seen.timestamp_micros(), at(5).timestamp_micros());
}

#[tokio::test]
async fn an_unknown_host_has_no_detail() {
    let (store, _database) = store("store_unknown").await;
    store
        .apply_turn(partition(), 0, &TurnRows::default(), &cursor(1))
        .await
        .unwrap();
    let detail = store.host_detail(&hostname(9)).await.unwrap();
    assert!(detail.seen.is_none() && detail.records.is_empty() && detail.blocks.is_empty());
}

#[tokio::test]
async fn a_gateway_reads_which_rollouts_exist_and_who_is_in_them() {
    let (store, _database) = store("store_members").await;
    let id = rollout_id("stable@01");
    let rows = opening(&id, 4);
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    let board = store.gateway_snapshot(partition()).await.unwrap();
    let opened = board.rollouts[0].clone();
    assert_eq!(board.rollouts.len(), 1);
    let other = store.gateway_snapshot(nixfleet_proto::subject::Partition::new(0));
    assert!(other.await.unwrap().rollouts.is_empty());
    let membership = async |id: &nixfleet_proto::RolloutId, number| {
        let hostname = hostname(number);
        store.rollout_member(id, &hostname).await.unwrap()
    };
    assert_eq!(membership(&opened, 0).await, Membership::Member);
    assert_eq!(membership(&opened, 999_999).await, Membership::NotMember);
    let unknown = rollout_id("stable@ffff");
    assert_eq!(membership(&unknown, 0).await, Membership::UnknownRollout);
    let ids = [opened, unknown];
    assert!(store.superseded_rollouts(&ids).await.unwrap().is_empty());
}
