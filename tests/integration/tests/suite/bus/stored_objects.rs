//! Manifests, announcements and dead letters.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use chrono::Utc;
use nixfleet_bus::{
    Announcements, Bus, BusConfig, DeadLetterRecord, ManifestError, PublishError, SignedFloor,
    UndecodableMessage,
};
use nixfleet_harness::proxy::ProxyMode;
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement, RolloutAnnouncement};
use nixfleet_proto::{ManifestHash, RolloutId};

use super::{SOON, bus, connect_through_proxy, p0, read, second};

fn artifact(hash: &str) -> ArtifactRef {
    ArtifactRef {
        hash: hash.into(),
        signature: "c2ln".to_owned(),
        signed_at: Utc::now(),
    }
}

fn release(hash: &str) -> ReleaseAnnouncement {
    let rollout_id: RolloutId = "stable@aa".parse().unwrap();
    let rollout = RolloutAnnouncement {
        v: 1,
        rollout_id: rollout_id.clone(),
        artifact: artifact("rollout"),
    };
    ReleaseAnnouncement {
        v: 1,
        fleet: artifact(hash),
        rollouts: BTreeMap::from([(rollout_id.channel(), rollout)]),
    }
}

async fn next(follow: &mut Announcements) -> (u64, ReleaseAnnouncement) {
    let next = tokio::time::timeout(SOON, follow.next()).await;
    next.expect("the announcement comes soon").unwrap()
}

#[tokio::test]
async fn artifacts_can_be_read_any_number_of_times_in_a_row() {
    let bus = bus("often").await;
    let hash = ManifestHash::from("0c1d");
    let bytes = bytes::Bytes::from(vec![7; 1024]);
    bus.manifests().put(&hash, bytes.clone()).await.unwrap();
    // The server allows a thousand consumers, so each read must delete its own.
    for _ in 0..1_100 {
        let read = bus.manifests().get(&hash).await.unwrap();
        assert_eq!(read.as_ref(), Some(&bytes));
    }
    bus.close().await;
}

#[tokio::test]
async fn artifacts_are_stored_once_under_their_hash() {
    let one = bus("objects").await;
    let two = second(&one).await;
    let hash = ManifestHash::from("0a1b");
    assert_eq!(two.manifests().get(&hash).await.unwrap(), None);
    // Several chunks, all different.
    let bytes: bytes::Bytes = (0..400_000_u32).flat_map(u32::to_be_bytes).collect();
    for layout in [bytes.slice(..10), bytes.clone()] {
        for bus in [&one, &two, &one] {
            bus.manifests().put(&hash, layout.clone()).await.unwrap();
        }
        assert_eq!(two.manifests().get(&hash).await.unwrap(), Some(layout));
    }
    one.close().await;

    let config = BusConfig {
        manifest_max_object_bytes: 1_000,
        ..two.config().clone()
    };
    let small = Bus::connect(config, "test/small").await.unwrap();
    let error = small.manifests().get(&hash).await.unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { .. }), "{error}");
    two.close().await;
    small.close().await;
}

/// The bus's word that an object is not there is no outage; silence is one.
#[tokio::test]
async fn a_lost_or_damaged_object_is_told_from_a_bus_that_does_not_answer() {
    let bus = bus("damaged").await;
    let manifests = bus.manifests();
    let hash = ManifestHash::from("0d1e");
    let bytes = bytes::Bytes::from_static(b"signed");
    let unusable = async || {
        manifests
            .get_all(&release("0d1e"))
            .await
            .unwrap()
            .unwrap_err()
    };
    assert!(unusable().await.contains("0d1e is not in the object store"));
    // Names that no object can have, of which one is longer than a subject may be.
    for name in ["", "x".repeat(10_000).as_str()] {
        assert_eq!(manifests.get(&name.into()).await.unwrap(), None);
    }
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let bucket = bus.names().manifest_bucket();
    let damage_parts = async || {
        let stream = context.get_stream(format!("OBJ_{bucket}")).await.unwrap();
        let parts = format!("$O.{bucket}.C.>");
        stream.purge().filter(parts).await.unwrap();
    };
    let damage_record = async || {
        let record = format!("$O.{bucket}.M.{}", URL_SAFE.encode("0d1e"));
        let sent = context.publish(record, "{".into()).await;
        sent.unwrap().await.unwrap();
    };
    for kind in ["parts", "record"] {
        manifests.put(&hash, bytes.clone()).await.unwrap();
        assert_eq!(manifests.get(&hash).await.unwrap(), Some(bytes.clone()));
        if kind == "parts" {
            damage_parts().await;
        } else {
            damage_record().await;
        }
        let error = manifests.get(&hash).await.unwrap_err();
        assert!(matches!(error, ManifestError::Damaged { .. }), "{error}");
        assert!(unusable().await.contains("0d1e is damaged"), "{kind}");
    }
    let config = BusConfig {
        request_timeout_seconds: 1,
        ..bus.config().clone()
    };
    let (through, proxy) = connect_through_proxy(&config).await;
    let cut_off = Bus::connect(through, "test/cut-off").await.unwrap();
    proxy.set(ProxyMode::Stalled);
    let silence = cut_off.manifests().get_all(&release("0d1e")).await;
    let error = silence.unwrap_err();
    assert!(
        matches!(error, ManifestError::Unavailable { .. }),
        "{error}"
    );
    bus.close().await;
}

#[tokio::test]
async fn announcements_are_compared_and_swapped_and_followed() {
    let one = bus("announce").await;
    let two = second(&one).await;
    let mut follow = two.manifests().follow("test");
    assert!(one.manifests().current().await.unwrap().is_none());
    let first = one.manifests().announce(&release("one"), 0).await.unwrap();
    let (seq, seen) = next(&mut follow).await;
    assert_eq!((seq, seen.fleet.hash.as_str()), (first, "one"));

    let crossed = two.manifests().announce(&release("crossed"), 0).await;
    assert!(matches!(crossed, Err(PublishError::Fenced { .. })));
    let second = two
        .manifests()
        .announce(&release("two"), first)
        .await
        .unwrap();
    let (seq, seen) = next(&mut follow).await;
    assert_eq!((seq, seen.fleet.hash.as_str()), (second, "two"));
    // A late follower begins with the current one.
    let (seq, _) = next(&mut one.manifests().follow("test")).await;
    assert_eq!(seq, second);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_dead_letter_keeps_reason_and_origin_and_is_stored_once() {
    let one = bus("dead").await;
    let letter = UndecodableMessage {
        stream: one.names().input_stream(p0()),
        seq: 42,
        subject: "s".to_owned(),
        reason: "the frame is empty".to_owned(),
        payload: bytes::Bytes::from_static(b"\xff{"),
    };
    let seq = one
        .store_dead_letter("reducer", letter.clone())
        .await
        .unwrap();
    // The same reducer after a restart.
    let again = second(&one)
        .await
        .store_dead_letter("reducer", letter)
        .await;
    assert_eq!((seq, again), (Some(1), Ok(None)));
    let messages = read(&mut one.reader(&one.names().dead_stream(), 1), 1).await;
    let record: DeadLetterRecord = serde_json::from_slice(&messages[0].payload).unwrap();
    let subject = one.names().dead("reducer", &record.stream, 42);
    assert_eq!(messages[0].subject, subject);
    assert_eq!((record.sequence, record.payload.as_str()), (42, "/3s="));
    let identity = one.stream_identity(&one.names().dead_stream()).await;
    assert_eq!(identity.unwrap().last_seq, 1);
    one.close().await;
}

#[tokio::test]
async fn a_floor_is_raised_only_and_is_none_once_an_administrator_deleted_it() {
    let bus = bus("floor").await;
    let floor = |minutes: i64| SignedFloor {
        signed_at: Utc::now() + chrono::TimeDelta::minutes(minutes),
        hash: "aa".into(),
    };
    let (earlier, later) = (floor(-5), floor(0));
    bus.raise_signed_floor("k", &later).await.unwrap();
    bus.raise_signed_floor("k", &earlier).await.unwrap();
    assert_eq!(bus.signed_floor("k").await.unwrap(), Some(later));
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let bucket = async_nats::jetstream::new(client)
        .get_key_value(bus.names().meta_bucket())
        .await
        .unwrap();
    bucket.delete("floor.k").await.unwrap();
    assert_eq!(bus.signed_floor("k").await.unwrap(), None);
    bus.raise_signed_floor("k", &earlier).await.unwrap();
    assert_eq!(bus.signed_floor("k").await.unwrap(), Some(earlier));
    bus.close().await;
}
