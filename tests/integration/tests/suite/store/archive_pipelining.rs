//! The archive: rows that are copied before those in front of them are archived.

use nixfleet_store::{ArchiveError, Store};
use tokio::sync::oneshot;

use super::archive::{batch, mark, row};
use super::fixtures::*;

#[tokio::test]
async fn what_is_copied_ahead_waits_for_its_turn_and_its_cursor() {
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
async fn what_is_copied_ahead_is_gone_when_its_turn_does_not_come_or_is_anothers() {
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

    // Another has archived it meanwhile.
    store.archive(&two, &mark("IN", 0, 2)).await.unwrap();
    let turn = async { panic!("it has no turn") };
    let refused = store.archive_ahead(&two, turn).await;
    assert!(matches!(refused, Err(ArchiveError::Db(_))), "{refused:?}");
    assert_eq!(sequences(&store).await, [2]);
}

/// What is in the archive.
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
