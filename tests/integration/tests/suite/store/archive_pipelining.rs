//! The archive: rows that are copied before those in front of them are archived.

use nixfleet_store::{ArchiveError, Store};
use tokio::sync::oneshot;

use super::archive::{batch, mark, row};
use super::sample_rollouts::*;

#[tokio::test]
async fn rows_copied_ahead_wait_for_their_turn_and_cursor() {
    let (store, _database) = store("store_archive_ahead").await;
    let [one, two] = [1, 2].map(|seq| batch(&[row("IN", seq, "{}", at(0))]));
    let (turn, turned) = oneshot::channel();
    let (copied, copying) = oneshot::channel();
    let ahead = async {
        let turn = async {
            copied.send(()).unwrap();
            turned.await.ok()
        };
        store.archive_ahead(&two, turn).await
    };
    let first = async {
        // Before it, and while it is copied already.
        copying.await.unwrap();
        store.archive(&one, &mark("IN", 0, 1)).await.unwrap();
        assert_eq!(sequences(&store).await, [1]);
        turn.send(mark("IN", 1, 2)).unwrap();
    };
    let (archived, ()) = tokio::join!(ahead, first);
    assert!(archived.unwrap());
    assert_eq!(sequences(&store).await, [1, 2]);
    assert_eq!(
        store
            .archive_cursor("IN")
            .await
            .unwrap()
            .map(|mark| mark.sequence),
        Some(2)
    );
}

#[tokio::test]
async fn rows_copied_ahead_are_discarded_without_a_turn_or_after_a_conflict() {
    let (store, _database) = store("store_archive_not_ahead").await;
    let two = batch(&[row("IN", 2, "{}", at(0))]);
    assert!(!store.archive_ahead(&two, async { None }).await.unwrap());
    let turn = async { Some(mark("IN", 1, 2)) };
    let conflict = store.archive_ahead(&two, turn).await;
    assert!(
        matches!(conflict, Err(ArchiveError::Conflict { .. })),
        "{conflict:?}"
    );
    assert_eq!(store.archive_cursor("IN").await.unwrap(), None);

    // Another writer has archived it in between.
    store.archive(&two, &mark("IN", 0, 2)).await.unwrap();
    let turn = async { panic!("it has no turn") };
    let refused = store.archive_ahead(&two, turn).await;
    assert!(matches!(refused, Err(ArchiveError::Db(_))), "{refused:?}");
    assert_eq!(sequences(&store).await, [2]);
}

/// Archived sequences.
async fn sequences(store: &Store) -> Vec<u64> {
    let mut session = store.audit_session().await.unwrap();
    let audit = session.begin().await.unwrap();
    let mut messages = audit.messages("IN", 1, u64::MAX).await.unwrap();
    let mut found = Vec::new();
    while let Some(message) = messages.next().await.unwrap() {
        found.push(message.sequence);
    }
    found
}
