//! Rows written from a checkpoint, for any previous content of the tables.

use nixfleet_proto::snapshot::PartitionSnapshot;
use nixfleet_proto::{ChannelName, ClosureHash, HostState, RolloutState};
use nixfleet_store::{ApplyError, BlockChange, DispatchChange, Store, TurnRows};

use super::sample_rollouts::*;
use super::turn_transactions::{change_of_every_table, holds};

/// Tables in which every kind of row is there.
async fn full(name: &str) -> PartitionSnapshot {
    let (store, _database) = store(name).await;
    let id = rollout_id("stable@4f");
    store
        .apply_turn(partition(), 0, &opening(&id, 3), &cursor(1))
        .await
        .unwrap();
    let mut host = pending(&id, 1);
    host.state = HostState::Soaking;
    host.soak_due_at = Some(at(99));
    let mut record = rollout_record(&id);
    record.state = RolloutState::Converging;
    let rows = change_of_every_table(&id, &host, &record);
    store
        .apply_turn(partition(), 1, &rows, &cursor(2))
        .await
        .unwrap();
    load(&store).await
}

async fn load(store: &Store) -> PartitionSnapshot {
    store.load_partition(partition()).await.unwrap()
}

#[tokio::test]
async fn a_checkpoint_restored_to_empty_tables_is_complete() {
    let rows = full("restore_source").await;
    let (store, _database) = store("restore_empty").await;
    store
        .restore_partition(partition(), 0, &rows)
        .await
        .unwrap();
    assert_eq!(load(&store).await, rows);
}

#[tokio::test]
async fn a_checkpoint_replaces_older_rows_and_their_side_tables() {
    let rows = full("restore_newer").await;
    let (store, _database) = store("restore_older").await;
    let id = rollout_id("stable@4f");
    let mut older = opening(&id, 3);
    let quarantine = (ChannelName::from("stable"), ClosureHash::from("lifted"));
    older.quarantines_inserted.insert(quarantine, stamp(1));
    let block = BlockChange {
        holds: holds(),
        stamp: stamp(1),
    };
    older
        .blocks
        .insert((id.clone(), 2, nixfleet_proto::Gate::Halt), block);
    let key = (id.clone(), pending(&id, 2).hostname);
    let dispatch = DispatchChange {
        target_closure: "new".into(),
        soak_minutes: Default::default(),
        stamp: stamp(1),
    };
    older.dispatches.insert(key.clone(), Some(dispatch));
    let key = (id.clone(), pending(&id, 0).hostname);
    let candidate = Some(ClosureHash::from("new"));
    older.recovery_candidates.insert(key, candidate);
    store
        .apply_turn(partition(), 0, &older, &cursor(1))
        .await
        .unwrap();
    store
        .restore_partition(partition(), 1, &rows)
        .await
        .unwrap();
    assert_eq!(load(&store).await, rows);
}

#[tokio::test]
async fn a_restore_is_refused_after_a_concurrent_change() {
    let rows = full("restore_late").await;
    let (store, _database) = store("restore_conflict").await;
    let id = rollout_id("stable@5b");
    store
        .apply_turn(partition(), 0, &opening(&id, 2), &cursor(1))
        .await
        .unwrap();
    let before = load(&store).await;
    for previous in [0, 7] {
        let result = store.restore_partition(partition(), previous, &rows).await;
        assert!(
            matches!(result, Err(ApplyError::Conflict { .. })),
            "{result:?}"
        );
        assert_eq!(load(&store).await, before);
    }
    // A turn of an applier that has not read the restored rows is refused as well.
    store
        .restore_partition(partition(), 1, &rows)
        .await
        .unwrap();
    let late = store
        .apply_turn(partition(), 1, &TurnRows::default(), &cursor(2))
        .await;
    assert!(matches!(late, Err(ApplyError::Conflict { .. })), "{late:?}");
}
