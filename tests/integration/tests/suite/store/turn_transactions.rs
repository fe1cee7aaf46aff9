//! Turns: rows and cursor together, once.

use nixfleet_proto::snapshot::{BlockRow, Cause, PartitionSnapshot, QuarantineRow, RolloutRow};
use nixfleet_proto::{
    ChannelName, ClosureHash, Gate, Hold, HostRecord, HostState, Position, RolloutId,
    RolloutRecord, RolloutState,
};
use nixfleet_store::{
    ApplyError, BlockChange, DispatchChange, FailureSet, RolloutChange, Store, TurnRows,
};

use super::sample_rollouts::*;

async fn load(store: &Store) -> PartitionSnapshot {
    store.load_partition(partition()).await.unwrap()
}

#[tokio::test]
async fn a_partition_without_turns_is_empty() {
    let (store, _database) = store("store_empty").await;
    assert_eq!(load(&store).await, PartitionSnapshot::default());
    assert_eq!(store.cursor(partition()).await.unwrap(), None);
}

/// A change of every table.
pub fn change_of_every_table(
    id: &RolloutId,
    host: &HostRecord,
    record: &RolloutRecord,
) -> TurnRows {
    let mut rows = host_change(host.clone(), 5);
    let quarantine = (ChannelName::from("stable"), ClosureHash::from("bad"));
    rows.quarantines_inserted.insert(quarantine, stamp(5));
    let dispatch = DispatchChange {
        target_closure: ClosureHash::from("new"),
        soak_minutes: host.soak_minutes,
        stamp: stamp(6),
    };
    rows.dispatches
        .insert((id.clone(), hostname(0)), Some(dispatch));
    let candidate = Some(ClosureHash::from("new"));
    rows.recovery_candidates
        .insert((id.clone(), hostname(2)), candidate);
    let block = BlockChange {
        holds: holds(),
        stamp: stamp(7),
    };
    rows.blocks.insert((id.clone(), 0, Gate::HostEdge), block);
    let change = RolloutChange {
        record: record.clone(),
        stamp: stamp(8),
    };
    rows.rollouts.insert(id.clone(), change);
    rows
}

pub fn holds() -> Vec<Hold> {
    vec![Hold {
        reason: "no\0".to_owned(),
        hosts: Some(vec![hostname(2)]),
        cause: None,
    }]
}

#[tokio::test]
async fn applied_records_are_loaded_unchanged() {
    let (store, _database) = store("store_load").await;
    let id = rollout_id("stable@4f");
    let applied = store
        .apply_turn(partition(), 0, &opening(&id, 3), &cursor(1))
        .await
        .unwrap();
    assert_eq!((applied.rows, applied.orphans), (4, 0));

    let mut host = pending(&id, 1);
    host.state = HostState::Soaking;
    host.last_event_seq = u64::MAX;
    host.soak_due_at = Some(at(99));
    let mut record = rollout_record(&id);
    record.state = RolloutState::Converging;
    let rows = change_of_every_table(&id, &host, &record);
    let applied = store
        .apply_turn(partition(), 1, &rows, &cursor(2))
        .await
        .unwrap();
    assert_eq!((applied.rows, applied.orphans), (6, 0));

    let snapshot = load(&store).await;
    assert_eq!(snapshot.cursor, Some(cursor(2)));
    assert_eq!(
        snapshot.rollouts,
        [RolloutRow {
            record,
            manifest_hash: "00ff".into(),
            pinned: Some(opened(&id, 3).pinned),
            position: stamp(8).position
        }]
    );
    assert_eq!(snapshot.hosts.len(), 3);
    let queued = Cause {
        position: stamp(6).position,
        at: at(6),
    };
    assert_eq!(snapshot.hosts[0].queued, Some(queued));
    assert_eq!(*snapshot.hosts[0].record, pending(&id, 0));
    assert_eq!(*snapshot.hosts[1].record, host);
    assert_eq!(snapshot.hosts[1].position, Position { seq: 5, index: 7 });
    assert_eq!(
        snapshot.hosts[2].recovery_candidate,
        Some(ClosureHash::from("new"))
    );
    assert_eq!(
        snapshot.quarantines,
        [QuarantineRow {
            channel: "stable".into(),
            closure_hash: "bad".into(),
            cause: cause(&stamp(5)),
        }]
    );
    let block = BlockRow {
        rollout_id: id.clone(),
        wave: 0,
        gate: Gate::HostEdge,
        holds: holds(),
        cause: cause(&stamp(7)),
    };
    assert_eq!(snapshot.blocks, [block]);
}

#[tokio::test]
async fn removals_delete_all_rows() {
    let (store, _database) = store("store_remove").await;
    let id = rollout_id("stable@4f");
    let mut rows = opening(&id, 2);
    let quarantine = (ChannelName::from("stable"), ClosureHash::from("bad"));
    rows.quarantines_inserted
        .insert(quarantine.clone(), stamp(1));
    let block = BlockChange {
        holds: vec![Hold {
            reason: "r".to_owned(),
            hosts: None,
            cause: None,
        }],
        stamp: stamp(1),
    };
    rows.blocks.insert((id.clone(), 1, Gate::Halt), block);
    for number in 0..2 {
        let dispatch = DispatchChange {
            target_closure: ClosureHash::from("new"),
            soak_minutes: Default::default(),
            stamp: stamp(1),
        };
        rows.dispatches
            .insert((id.clone(), hostname(number)), Some(dispatch));
    }
    let probe = (id.clone(), hostname(0), "http".into());
    let failing = FailureSet {
        failures: vec![Default::default(); 2],
        observed_at: at(1),
        stamp: stamp(1),
    };
    rows.probe_failures.insert(probe.clone(), failing);
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    let before = load(&store).await;
    assert_eq!(
        before.probe_failures.len(),
        1,
        "one failure named twice is one"
    );
    assert!(before.hosts.iter().all(|host| host.queued.is_some()));

    let mut rows = TurnRows::default();
    rows.quarantines_removed.insert(quarantine);
    let gone = BlockChange {
        holds: Vec::new(),
        stamp: stamp(2),
    };
    rows.blocks.insert((id.clone(), 1, Gate::Halt), gone);
    rows.dispatches_cancelled.insert(id.clone());
    let passing = FailureSet {
        failures: Vec::new(),
        observed_at: at(2),
        stamp: stamp(2),
    };
    rows.probe_failures.insert(probe, passing);
    store
        .apply_turn(partition(), 1, &rows, &cursor(2))
        .await
        .unwrap();
    let after = load(&store).await;
    assert!(after.quarantines.is_empty() && after.blocks.is_empty());
    assert!(after.probe_failures.is_empty());
    assert!(after.hosts.iter().all(|host| host.queued.is_none()));
}

#[tokio::test]
async fn a_turn_with_another_cursor_has_no_effect() {
    let (store, _database) = store("store_conflict").await;
    let id = rollout_id("stable@4f");
    store
        .apply_turn(partition(), 0, &opening(&id, 1), &cursor(5))
        .await
        .unwrap();
    let before = load(&store).await;
    let mut host = pending(&id, 0);
    host.state = HostState::Failed;
    for previous in [0, 4, 6] {
        let result = store
            .apply_turn(
                partition(),
                previous,
                &host_change(host.clone(), 9),
                &cursor(7),
            )
            .await;
        assert!(
            matches!(result, Err(ApplyError::Conflict { partition: 3, expected }) if expected == previous),
            "{result:?}"
        );
    }
    assert_eq!(load(&store).await, before);
}

#[tokio::test]
async fn two_appliers_apply_each_turn_once() {
    let (first, database) = store("store_race").await;
    let second = connect(&database);
    let id = rollout_id("stable@4f");
    first
        .apply_turn(partition(), 0, &opening(&id, 1), &cursor(1))
        .await
        .unwrap();
    const TURNS: u64 = 40;
    let race = |store: Store| {
        let id = id.clone();
        tokio::spawn(async move {
            let (mut won, mut lost) = (0, 0);
            let mut position = 1;
            while position < TURNS {
                let mut host = pending(&id, 0);
                host.last_event_seq = position + 1;
                let rows = host_change(host, position + 1);
                match store
                    .apply_turn(partition(), position, &rows, &cursor(position + 1))
                    .await
                {
                    Ok(_) => {
                        won += 1;
                        position += 1;
                    }
                    Err(ApplyError::Conflict { .. }) => {
                        lost += 1;
                        position = store.cursor(partition()).await.unwrap().unwrap().out_seq;
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            (won, lost)
        })
    };
    let (a, b) = tokio::join!(race(first.clone()), race(second));
    let ((won_a, _), (won_b, _)) = (a.unwrap(), b.unwrap());
    assert_eq!(won_a + won_b, TURNS - 1);
    assert_eq!(load(&first).await.hosts[0].record.last_event_seq, TURNS);
}

#[tokio::test]
async fn changes_of_unopened_rollouts_are_counted_as_orphans() {
    let (store, _database) = store("store_orphans").await;
    let id = rollout_id("stable@4f");
    let rows = host_change(pending(&id, 0), 3);
    let applied = store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    assert_eq!((applied.rows, applied.orphans), (0, 1));
}

#[tokio::test]
async fn a_turn_changes_more_hosts_than_one_statement_writes() {
    let (store, _database) = store("store_many").await;
    let (id, nobody) = (rollout_id("stable@4f"), rollout_id("edge@4f"));
    let rows = opening(&id, 600);
    let opened = store.apply_turn(partition(), 0, &rows, &cursor(1)).await;
    opened.unwrap();
    let mut rows = host_change(pending(&nobody, 0), 3);
    for index in 0..600 {
        let mut host = pending(&id, index);
        host.last_event_seq = index as u64 + 1;
        rows.hosts.extend(host_change(host, 4).hosts);
    }
    let applied = store.apply_turn(partition(), 1, &rows, &cursor(2)).await;
    let applied = applied.unwrap();
    assert_eq!((applied.rows, applied.orphans), (600, 1));
    let seqs: Vec<u64> = load(&store)
        .await
        .hosts
        .iter()
        .map(|host| host.record.last_event_seq)
        .collect();
    assert_eq!(seqs, (1..=600).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_large_rollout_opens_in_one_turn() {
    let (store, _database) = store("store_large").await;
    let id = rollout_id("stable@4f");
    let rows = opening(&id, 45_000);
    let start = std::time::Instant::now();
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    let opened = start.elapsed();
    let snapshot = load(&store).await;
    println!(
        "opened in {opened:?}, loaded in {:?}",
        start.elapsed() - opened
    );
    assert_eq!(snapshot.hosts.len(), 45_000);
    assert!(
        snapshot
            .hosts
            .is_sorted_by(|a, b| a.record.hostname < b.record.hostname)
    );
}

#[tokio::test]
async fn a_sequence_too_large_for_its_column_is_refused() {
    let (store, _database) = store("store_range").await;
    let far = nixfleet_proto::snapshot::Cursor {
        out_seq: u64::MAX,
        ..cursor(1)
    };
    let result = store
        .apply_turn(partition(), 0, &TurnRows::default(), &far)
        .await;
    assert!(
        matches!(result, Err(ApplyError::OutOfRange(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_lost_connection_is_retryable_and_the_next_call_succeeds() {
    let (store, database) = store("store_terminate").await;
    let id = rollout_id("stable@4f");
    store
        .apply_turn(partition(), 0, &opening(&id, 1), &cursor(1))
        .await
        .unwrap();
    raw(&database)
        .await
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
            &[],
        )
        .await
        .unwrap();
    // The pool may have noticed already; an error must be retryable.
    for _ in 0..5 {
        match store.cursor(partition()).await {
            Ok(found) => {
                assert_eq!(found, Some(cursor(1)));
                return;
            }
            Err(error) => assert!(error.retryable(), "{error:?}"),
        }
    }
    panic!("the pool does not recover");
}
