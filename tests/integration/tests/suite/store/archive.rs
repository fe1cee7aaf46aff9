//! The archive: rows and cursor together, once, in partitions by day.

use nixfleet_proto::{ManifestHash, Position, Timestamp};
use nixfleet_store::{ArchiveCursor, ArchiveError, ArchiveMark, ArchiveRow};

use super::fixtures::*;

fn row(stream: &str, sequence: u64, payload: &str, ts: Timestamp) -> ArchiveRow {
    ArchiveRow {
        stream: stream.to_owned(),
        sequence,
        index: 0,
        subject: "fleet.in.03.event.stable.4f".to_owned(),
        ts,
        kind: "entry".to_owned(),
        rollout_id: Some(rollout_id("stable@4f")),
        hostname: Some(hostname(0)),
        input: Some(Position {
            seq: sequence,
            index: 0,
        }),
        payload: payload.to_owned(),
        traceparent: None,
    }
}

fn mark(stream: &str, previous_sequence: u64, sequence: u64) -> ArchiveCursor {
    ArchiveCursor {
        stream: stream.to_owned(),
        previous_sequence,
        sequence,
        stream_created: at(0),
    }
}

#[tokio::test]
async fn a_batch_is_archived_once_with_its_cursor() {
    let (store, database) = store("store_archive").await;
    assert_eq!(store.archive_cursor("IN").await.unwrap(), None);
    let days = [at(0), at(86_400 * 3), at(86_400 * 40)];
    let rows: Vec<_> = (1..)
        .zip(days)
        .map(|(seq, ts)| row("IN", seq, r#"{"body":"\u0000"}"#, ts))
        .collect();
    store.archive(&rows, &mark("IN", 0, 3)).await.unwrap();
    let conflict = store.archive(&rows, &mark("IN", 0, 3)).await;
    assert!(
        matches!(conflict, Err(ArchiveError::Conflict { .. })),
        "{conflict:?}"
    );
    let found = store.archive_cursor("IN").await.unwrap();
    assert_eq!(
        found,
        Some(ArchiveMark {
            sequence: 3,
            stream_created: at(0)
        })
    );
    let client = raw(&database).await;
    let count: i64 = client
        .query_one("SELECT count(*) FROM event_log", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 3);
    store.archive(&[], &mark("IN", 3, 9)).await.unwrap();
    assert_eq!(
        store.archive_cursor("IN").await.unwrap().unwrap().sequence,
        9
    );
}

#[tokio::test]
async fn history_joins_entries_with_their_outcomes() {
    let (store, _database) = store("store_history").await;
    let entries: Vec<_> = (1..=3)
        .map(|seq| row("IN", seq, r#"{"body":{"n":1}}"#, at(1)))
        .collect();
    store.archive(&entries, &mark("IN", 0, 3)).await.unwrap();
    let mut outcome = row("OUT", 1, r#"{"subject":{},"rejected":{}}"#, at(2));
    outcome.input = Some(Position { seq: 2, index: 0 });
    store.archive(&[outcome], &mark("OUT", 0, 1)).await.unwrap();

    let page = store
        .rollout_events(&rollout_id("stable@4f"), None, 2)
        .await
        .unwrap();
    assert_eq!(page.events.len(), 2);
    assert_eq!(page.events[0].outcome, None);
    assert!(page.events[1].outcome.as_ref().unwrap()["rejected"].is_object());
    let page = store
        .rollout_events(&rollout_id("stable@4f"), page.next, 2)
        .await
        .unwrap();
    assert_eq!(page.events.len(), 1);
    assert_eq!((page.events[0].position.seq, page.next), (3, None));
    let none = store
        .rollout_events(&rollout_id("stable@ff"), None, 2)
        .await
        .unwrap();
    assert!(none.events.is_empty());
}

#[tokio::test]
async fn archiving_recovers_from_a_dropped_schema() {
    let (store, database) = store("store_archive_drop").await;
    store
        .archive(&[row("IN", 1, "{}", at(0))], &mark("IN", 0, 1))
        .await
        .unwrap();
    raw(&database)
        .await
        .batch_execute("DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    let error = store
        .archive(&[row("IN", 2, "{}", at(0))], &mark("IN", 1, 2))
        .await
        .unwrap_err();
    assert!(error.schema_missing() && error.retryable(), "{error:?}");
    store.migrate().await.unwrap();
    store
        .archive(&[row("IN", 1, "{}", at(0))], &mark("IN", 0, 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn two_archivers_may_want_the_same_new_day() {
    let (store, database) = store("store_archive_days").await;
    let other = connect(&database);
    let (a, b) = ([row("A", 1, "{}", at(0))], [row("B", 1, "{}", at(0))]);
    let (mark_a, mark_b) = (mark("A", 0, 1), mark("B", 0, 1));
    let (first, second) = tokio::join!(store.archive(&a, &mark_a), other.archive(&b, &mark_b));
    first.unwrap();
    second.unwrap();
}

#[tokio::test]
async fn an_artifact_comes_back_byte_for_byte_in_whatever_parts_it_is_kept() {
    let (store, _database) = store("store_artifacts").await;
    for (name, size) in [("empty", 0), ("small", 10), ("large", 20 * 1024 * 1024 + 1)] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let hash = ManifestHash::from(name);
        assert_eq!(store.artifact(&hash).await.unwrap(), None);
        assert!(!store.is_artifact_archived(&hash).await.unwrap());
        store.archive_artifact(&hash, &bytes).await.unwrap();
        store.archive_artifact(&hash, &bytes).await.unwrap();
        assert!(store.is_artifact_archived(&hash).await.unwrap());
        assert!(
            store.artifact(&hash).await.unwrap() == Some(bytes),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_archive_is_read_back_in_order_with_its_generations() {
    let (store, _database) = store("store_history").await;
    let day = |day: i64| at(day * 86_400);
    let first = row("IN", 5, r#"{"a":1}"#, day(1));
    let second = ArchiveRow {
        index: 1,
        ..row("IN", 5, r#"{"a":2}"#, day(1))
    };
    // The log was lost and goes on above; its clock, too, is another one.
    let anew = row("IN", 1_000_006, r#"{"a":"\u0000"}"#, day(0));
    let cursor = |previous_sequence, sequence, stream_created| ArchiveCursor {
        stream: "IN".to_owned(),
        previous_sequence,
        sequence,
        stream_created,
    };
    store
        .archive(&[first, second], &cursor(0, 5, at(0)))
        .await
        .unwrap();
    store
        .archive(&[anew], &cursor(5, 1_000_006, at(9)))
        .await
        .unwrap();

    let mut session = store.audit_session().await.unwrap();
    let audit = session.begin().await.unwrap();
    let archived = audit.archived("IN").await.unwrap().unwrap();
    assert_eq!((archived.first, archived.mark.sequence), (5, 1_000_006));
    let generations = archived.generations.iter();
    let generations: Vec<_> = generations.map(|g| (g.created, g.first_sequence)).collect();
    assert_eq!(generations, [(at(0), 5), (at(9), 1_000_006)]);
    assert_eq!(audit.archived("OUT").await.unwrap(), None);

    let mut messages = audit.messages("IN", 1, u64::MAX).await.unwrap();
    let one = messages.next().await.unwrap().unwrap();
    assert_eq!(one.sequence, 5);
    let payloads: Vec<_> = one
        .rows
        .iter()
        .map(|row| (row.index, row.payload.as_str()))
        .collect();
    assert_eq!(payloads, [(0, r#"{"a": 1}"#), (1, r#"{"a": 2}"#)]);
    let two = messages.next().await.unwrap().unwrap();
    assert_eq!(two.rows[0].payload, r#"{"a": "\u0000"}"#);
    assert_eq!(messages.next().await.unwrap(), None);
}
