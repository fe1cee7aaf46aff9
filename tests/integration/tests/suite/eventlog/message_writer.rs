//! Messages of every stream, also such as only a broken or hostile writer sends.

use std::collections::BTreeMap;

use chrono::Utc;
use nixfleet_bus::{Bus, UndecodableMessage};
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement};
use nixfleet_proto::outcome::{Decision, Outcome, OutcomeSubject};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, OutputFrame, Position, Reason, Rejection, RolloutId};

fn rollout() -> RolloutId {
    "stable@4f".parse().unwrap()
}

/// Appends a few entries and a frame of their outcomes.
pub async fn write_round(bus: &Bus, partition: Partition, round: usize) {
    let entry = |host: usize| {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: rollout(),
            hostname: format!("host-{host}").parse().unwrap(),
            // Hostile hosts send NUL.
            current_closure: match host {
                0 => "nul\0name".into(),
                _ => format!("closure-{round}").into(),
            },
        };
        Entry::new(Utc::now(), body)
    };
    let entries = (0..1 + round % 4).map(entry).collect();
    let positions = bus.input().append_all(partition, entries).await.unwrap();
    let frame = OutputFrame {
        first_input: positions.first().copied(),
        outcomes: positions.into_iter().map(outcome).collect(),
        ..OutputFrame::new(round as u64)
    };
    publish(bus, partition, &frame).await;
}

async fn publish(bus: &Bus, partition: Partition, frame: &OutputFrame) {
    let log = bus.output(partition);
    let last = bus.last_message(log.stream()).await.unwrap();
    log.publish(frame, last.map_or(0, |last| last.seq))
        .await
        .unwrap();
}

/// Publishes an output frame of half a megabyte.
pub async fn write_large(bus: &Bus, partition: Partition, epoch: u64) {
    let long = |index| Outcome {
        decision: Decision::Rejected(Rejection::new(Reason::Unknown, "x".repeat(100 * 1024))),
        ..outcome(Position { seq: 1, index })
    };
    let frame = OutputFrame {
        outcomes: (0..5).map(long).collect(),
        ..OutputFrame::new(epoch)
    };
    publish(bus, partition, &frame).await;
}

fn outcome(position: Position) -> Outcome {
    Outcome {
        position,
        at: Utc::now(),
        subject: OutcomeSubject {
            entry: "RecoveryCandidate".into(),
            event: None,
            producer: None,
            rollout_id: Some(rollout()),
            hostname: Some("h".into()),
            actor: None,
        },
        traceparent: None,
        decision: Decision::Rejected(Rejection::new(Reason::Unknown, "no such rollout")),
    }
}

/// Stores undecodable messages in every stream of a partition.
pub async fn write_garbage(bus: &Bus, partition: Partition) {
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let names = bus.names();
    let input = format!("{}.in.{partition}.event.stable.4f", names.prefix());
    for payload in [
        &b"{\"v\":1,\"entries\":[7]}"[..],
        b"",
        b"\xff\x00",
        b"{\"v\":9}",
        br#"{"v":1,"epoch":2,"outcomes":[{]}"#,
        br#"{"v":1,"epoch":2,"outcomes":[],"later":[7]}"#,
        // The stored form of a later release, and a truncated one.
        b"\x82later",
        b"\x81\x28\xb5\x2f\xfd",
    ] {
        for subject in [input.clone(), names.output(partition, "garbage")] {
            let sent = context.publish(subject, payload.to_vec().into()).await;
            sent.unwrap().await.unwrap();
        }
    }
    for (subject, payload) in [
        (input.clone(), too_deep()),
        (names.output(partition, "later"), frame_of_a_later_release()),
    ] {
        let sent = context.publish(subject, payload.into()).await;
        sent.unwrap().await.unwrap();
    }
    let sent = context
        .publish(names.dead("test", "S", 1), "not JSON".into())
        .await;
    sent.unwrap().await.unwrap();
    let letter = UndecodableMessage {
        stream: names.input_stream(partition),
        seq: 1,
        subject: input,
        reason: "the payload is malformed".to_owned(),
        payload: bytes::Bytes::from_static(b"\xff\x00"),
    };
    bus.store_dead_letter("reducer", letter).await.unwrap();
}

/// An entry with an unknown field that the database refuses.
fn too_deep() -> String {
    let body = EntryBody::RecoveryCandidate {
        rollout_id: rollout(),
        hostname: "h".into(),
        current_closure: "c".into(),
    };
    let entry = serde_json::to_string(&Entry::new(Utc::now(), body)).unwrap();
    let levels = 100_000;
    let (open, close) = ("[".repeat(levels), "]".repeat(levels));
    let entry = entry.replacen('{', &format!(r#"{{"later":{open}{close},"#), 1);
    format!(r#"{{"v":1,"entries":[{entry}]}}"#)
}

/// An output frame with an array behind its outcomes.
fn frame_of_a_later_release() -> String {
    let outcome = serde_json::to_string(&outcome(Position { seq: 1, index: 0 })).unwrap();
    format!(r#"{{"v":1,"epoch":2,"outcomes":[{outcome}],"later":[{{}}]}}"#)
}

/// Announces a release without rollouts.
pub async fn announce(bus: &Bus) {
    let current = bus.manifests().current().await.unwrap();
    let release = ReleaseAnnouncement {
        v: 1,
        fleet: ArtifactRef {
            hash: "0a".into(),
            signature: "c2ln".to_owned(),
            signed_at: Utc::now(),
        },
        rollouts: BTreeMap::new(),
    };
    let expected = current.map_or(0, |(seq, _)| seq);
    bus.manifests().announce(&release, expected).await.unwrap();
}
