//! Checkpoints in the object store, and trimming, on a real server.

use bytes::Bytes;
use nixfleet_bus::{Bus, LastFrame};
use nixfleet_proto::{CheckpointRef, Checkpoints, OutputFrame};

use super::{bus, entry, p0, p1, read};

/// Of the position that its name ends with.
fn named(hash: &str, bytes: usize) -> CheckpointRef {
    CheckpointRef {
        hash: hash.to_owned(),
        bytes: bytes as u64,
        out_seq: hash[1..].parse().unwrap(),
        input: None,
    }
}

async fn put(bus: &Bus, hash: &str, bytes: usize) -> CheckpointRef {
    let named = named(hash, bytes);
    let store = bus.checkpoints();
    let object = Bytes::from(vec![7; bytes]);
    store.put(p0(), &named, object.clone()).await.unwrap();
    // Storing it again has no effect.
    store.put(p0(), &named, object).await.unwrap();
    named
}

#[tokio::test]
async fn checkpoints_are_stored_by_partition_and_older_ones_are_deleted_completely() {
    let bus = bus("checkpoints").await;
    let store = bus.checkpoints();
    let other = named("c0", 3);
    store
        .put(p1(), &other, Bytes::from_static(b"abc"))
        .await
        .unwrap();
    let mut kept = Checkpoints::default();
    for number in 0..5 {
        let stored = put(&bus, &format!("c{number}"), 700_000).await;
        kept = kept.with(stored);
        store.delete_obsolete(p0(), &kept).await.unwrap();
    }
    for number in 0..5 {
        let named = named(&format!("c{number}"), 700_000);
        assert_eq!(store.holds(p0(), &named).await.unwrap(), number >= 3);
        let found = store.get(p0(), &named).await.unwrap();
        assert_eq!(
            found.map(|bytes| bytes.len()),
            (number >= 3).then_some(700_000)
        );
    }
    assert!(store.holds(p1(), &other).await.unwrap());
    // A fenced owner deletes no object of its successor.
    let late = Checkpoints::default().with(named("c3", 700_000));
    assert_eq!(store.delete_obsolete(p0(), &late).await.unwrap(), 0);
    assert!(store.holds(p0(), &named("c4", 700_000)).await.unwrap());
    // Of another size it is another object.
    assert!(!store.holds(p1(), &named("c0", 4)).await.unwrap());
    // Two objects of two chunks and one of one, and a record of each.
    let stream = format!("OBJ_{}", bus.names().checkpoint_bucket());
    assert_eq!(bus.log_usage(&stream).await.unwrap().messages, 5 + 3);
    bus.close().await;
}

#[tokio::test]
async fn the_newest_announcement_is_found_from_the_last_frame() {
    let bus = bus("announced").await;
    let store = bus.checkpoints();
    assert_eq!(store.announced(p0()).await.unwrap(), Checkpoints::default());
    let log = bus.output(p0());
    let plain = OutputFrame::new(1);
    log.publish(&plain, 0).await.unwrap();
    assert!(store.announced(p0()).await.unwrap().is_empty());
    let announced = Checkpoints::default().with(named("a1", 1));
    let announcement = OutputFrame {
        checkpoints: Some(announced.clone()),
        ..OutputFrame::new(1)
    };
    log.publish(&announcement, 1).await.unwrap();
    assert_eq!(store.announced(p0()).await.unwrap(), announced);
    let behind = OutputFrame {
        announced_at: Some(2),
        ..OutputFrame::new(1)
    };
    log.publish(&behind, 2).await.unwrap();
    assert_eq!(store.announced(p0()).await.unwrap(), announced);
    // An untrimmed log restores itself.
    assert!(!store.is_restoring(p0()).await.unwrap());
    bus.trim(log.stream(), 2).await.unwrap();
    assert!(store.is_restoring(p0()).await.unwrap());
    bus.close().await;
}

#[tokio::test]
async fn a_trimmed_log_keeps_its_fence_and_sequences() {
    let bus = bus("trimmed").await;
    let log = bus.output(p0());
    for seq in 0..5 {
        assert_eq!(
            log.publish(&OutputFrame::new(seq + 1), seq).await.unwrap(),
            seq + 1
        );
    }
    assert_eq!(bus.trim(log.stream(), 5).await.unwrap(), 4);
    assert_eq!(bus.trim(log.stream(), 5).await.unwrap(), 0);
    let fill = bus.log_usage(log.stream()).await.unwrap();
    assert_eq!((fill.first_seq, fill.last_seq, fill.messages), (5, 5, 1));
    assert_eq!(fill.max_bytes, 64 * 1024 * 1024);
    // The owner continues, and a new one finds the last frame.
    assert_eq!(log.publish(&OutputFrame::new(6), 5).await.unwrap(), 6);
    let other = bus.output(p0());
    let last = other.last().await.unwrap();
    assert!(matches!(last, Some(LastFrame { seq: 6, .. })));
    assert_eq!(other.publish(&OutputFrame::new(7), 6).await.unwrap(), 7);
    let input = bus.input();
    for number in 0..3 {
        input
            .append(p0(), entry("a@aa", "h", number))
            .await
            .unwrap();
    }
    let stream = bus.names().input_stream(p0());
    bus.trim(&stream, 3).await.unwrap();
    let mut reader = bus.reader(&stream, 3);
    assert_eq!(read(&mut reader, 1).await[0].seq, 3);
    bus.close().await;
}
