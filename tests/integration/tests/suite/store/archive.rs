//! The archive: rows and cursor together, once, in partitions by day.

use nixfleet_proto::{ManifestHash, Position, Timestamp};
use nixfleet_store::{ArchiveBatch, ArchiveCursor, ArchiveError, ArchiveMark, ArchiveRow};

use super::sample_rollouts::*;

pub fn row<'a>(stream: &'a str, sequence: u64, payload: &'a str, ts: Timestamp) -> ArchiveRow<'a> {
    ArchiveRow {
        stream,
        sequence,
        index: 0,
        subject: "fleet.in.03.event.stable.4f",
        ts,
        kind: "entry",
        rollout_id: Some("stable@4f"),
        hostname: Some("host-0"),
        input: Some(Position {
            seq: sequence,
            index: 0,
        }),
        payload,
        traceparent: None,
        outcomes: None,
    }
}

pub fn batch(rows: &[ArchiveRow<'_>]) -> ArchiveBatch {
    let mut batch = ArchiveBatch::default();
    for row in rows {
        batch.push(row).unwrap();
    }
    batch
}

pub fn mark(stream: &str, previous_sequence: u64, sequence: u64) -> ArchiveCursor {
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
    let rows = batch(&rows);
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
    store.archive(&batch(&[]), &mark("IN", 3, 9)).await.unwrap();
    assert_eq!(
        store.archive_cursor("IN").await.unwrap().unwrap().sequence,
        9
    );
}

/// Adds a frame that covers the input up to a sequence, with the given named outcomes.
fn push_frame(batch: &mut ArchiveBatch, sequence: u64, covers: u64, answers: &[(u64, &str)]) {
    let outcome = |(seq, name): &(u64, &str)| {
        let position = format!(r#"{{"seq":{seq},"index":0}}"#);
        format!(r#"{{"position":{position},"subject":{{}},"rejected":{{"by":"{name}"}}}}"#)
    };
    let outcomes: Vec<String> = answers.iter().map(outcome).collect();
    let outcomes = (!outcomes.is_empty()).then(|| format!("[{}]", outcomes.join(",")));
    let frame = ArchiveRow {
        index: -1,
        kind: "frame",
        rollout_id: None,
        hostname: None,
        input: Some(Position {
            seq: covers,
            index: 0,
        }),
        outcomes: outcomes.as_deref(),
        ..row("OUT", sequence, r#"{"v":1,"epoch":1}"#, at(2))
    };
    batch.push(&frame).unwrap();
}

#[tokio::test]
async fn history_joins_entries_with_their_outcomes() {
    let (store, _database) = store("store_history").await;
    let entries: Vec<_> = (1..=6)
        .map(|seq| row("IN", seq, r#"{"body":{"n":1}}"#, at(1)))
        .collect();
    store
        .archive(&batch(&entries), &mark("IN", 0, 6))
        .await
        .unwrap();
    let mut frames = ArchiveBatch::default();
    // The outcome of 1 is not archived.
    push_frame(&mut frames, 1, 3, &[(2, "a"), (3, "a")]);
    // A takeover without outcomes.
    push_frame(&mut frames, 2, 3, &[]);
    push_frame(&mut frames, 3, 4, &[(4, "b")]);
    // Decided again after a loss.
    push_frame(&mut frames, 4, 5, &[(3, "c"), (4, "c"), (5, "c")]);
    store.archive(&frames, &mark("OUT", 0, 4)).await.unwrap();

    let id = rollout_id("stable@4f");
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = store.rollout_events(&id, "OUT", after, 4).await.unwrap();
        found.extend(page.events.into_iter().map(|event| {
            let by = |outcome: serde_json::Value| outcome["rejected"]["by"].to_string();
            (event.position.seq, event.outcome.map(by))
        }));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let some = |name: &str| Some(format!("{name:?}"));
    assert_eq!(found.len(), 6);
    assert_eq!(found[..2], [(1, None), (2, some("a"))]);
    assert!(found[2].1.is_some() && found[3].1.is_some(), "{found:?}");
    assert_eq!(found[4..], [(5, some("c")), (6, None)]);

    let other = rollout_id("stable@ff");
    let none = store.rollout_events(&other, "OUT", None, 2).await.unwrap();
    assert!(none.events.is_empty());
}

#[tokio::test]
async fn archiving_recovers_from_a_dropped_schema() {
    let (store, database) = store("store_archive_drop").await;
    store
        .archive(&batch(&[row("IN", 1, "{}", at(0))]), &mark("IN", 0, 1))
        .await
        .unwrap();
    raw(&database)
        .await
        .batch_execute("DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    let error = store
        .archive(&batch(&[row("IN", 2, "{}", at(0))]), &mark("IN", 1, 2))
        .await
        .unwrap_err();
    assert!(error.schema_missing() && error.retryable(), "{error:?}");
    store.migrate().await.unwrap();
    store
        .archive(&batch(&[row("IN", 1, "{}", at(0))]), &mark("IN", 0, 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn two_archivers_may_create_the_same_day_partition() {
    let (store, database) = store("store_archive_days").await;
    let other = connect(&database);
    let [a, b] = ["A", "B"].map(|stream| batch(&[row(stream, 1, "{}", at(0))]));
    let (mark_a, mark_b) = (mark("A", 0, 1), mark("B", 0, 1));
    let (first, second) = tokio::join!(store.archive(&a, &mark_a), other.archive(&b, &mark_b));
    first.unwrap();
    second.unwrap();
}

#[tokio::test]
async fn an_artifact_of_any_size_is_read_back_unchanged() {
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
async fn the_archive_is_read_in_order_with_its_generations() {
    let (store, _database) = store("store_history").await;
    let day = |day: i64| at(day * 86_400);
    let first = row("IN", 5, r#"{"a":1}"#, day(1));
    let second = ArchiveRow {
        index: 1,
        ..row("IN", 5, r#"{"a":2}"#, day(1))
    };
    // The log was lost and continues with higher sequences and another clock.
    let anew = row("IN", 1_000_006, r#"{"a":"\u0000"}"#, day(0));
    let cursor = |previous_sequence, sequence, stream_created| ArchiveCursor {
        stream: "IN".to_owned(),
        previous_sequence,
        sequence,
        stream_created,
    };
    store
        .archive(&batch(&[first, second]), &cursor(0, 5, at(0)))
        .await
        .unwrap();
    store
        .archive(&batch(&[anew]), &cursor(5, 1_000_006, at(9)))
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
    assert_eq!(payloads, [(0, r#"{"a":1}"#), (1, r#"{"a":2}"#)]);
    let two = messages.next().await.unwrap().unwrap();
    assert_eq!(two.rows[0].payload, r#"{"a":"\u0000"}"#);
    assert_eq!(messages.next().await.unwrap(), None);
}
