//! Streams and constants of a fleet.

use async_nats::jetstream;
use nixfleet_bus::{Bus, BusConfig, LayoutError, SequenceFloors};
use nixfleet_harness::shared_nats;
use nixfleet_harness::unique_prefix;
use nixfleet_proto::OutputFrame;

use super::{bus, config, entry, p0, read, second};

#[tokio::test]
async fn another_partition_count_is_refused() {
    let one = bus("mismatch").await;
    let other = BusConfig {
        partitions: 3,
        ..one.config().clone()
    };
    let other = Bus::connect(other, "test/other").await.unwrap();
    let error = other
        .ensure_layout(&SequenceFloors::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("with 2 partitions"),
        "the message names the fleet's value: {error}"
    );
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn services_may_create_the_layout_concurrently() {
    let config = config(&shared_nats().unwrap().url(), &unique_prefix("together"));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..6_u64 {
        let config = config.clone();
        tasks.spawn(async move {
            let bus = Bus::connect(config, &format!("test/{number}"))
                .await
                .unwrap();
            let mut floors = SequenceFloors::default();
            // The cursors have different positions in the lost log.
            floors.raise(bus.names().input_stream(p0()), 1_000 + number);
            bus.ensure_layout(&floors).await.unwrap();
            bus
        });
    }
    let buses = tasks.join_all().await;
    let appended = buses[0].input().append(p0(), entry("a@aa", "h", 0)).await;
    appended.unwrap();
    for bus in buses {
        bus.close().await;
    }
}

#[tokio::test]
async fn streams_are_created_above_remembered_sequences() {
    let config = config(&shared_nats().unwrap().url(), &unique_prefix("floors"));
    let bus = Bus::connect(config, "test/one").await.unwrap();
    let stream = bus.names().input_stream(p0());
    let mut floors = SequenceFloors::default();
    floors.raise(&stream, 500);
    bus.ensure_layout(&floors).await.unwrap();
    let first = bus.stream_identity(&stream).await.unwrap().first_seq;
    assert!(first > 500);
    let position = bus.input().append(p0(), entry("a@aa", "h", 0)).await;
    assert_eq!(position.unwrap().seq, first);
    assert_eq!(read(&mut bus.reader(&stream, first), 1).await[0].seq, first);

    // A log that ends before a cursor was lost or restored from a backup.
    floors.raise(&stream, first + 1);
    let error = bus.ensure_layout(&floors).await.unwrap_err();
    assert!(matches!(error, LayoutError::Regressed { .. }), "{error}");
    bus.close().await;
}

#[tokio::test]
async fn limits_of_existing_streams_grow_and_never_shrink() {
    let one = bus("limits").await;
    let client = async_nats::connect(&one.config().url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = one.names().input_stream(p0());
    let bytes = async || {
        let stream = context.get_stream(&stream).await.unwrap();
        stream.cached_info().config.max_bytes
    };
    for (configured, expected) in [(128, 128), (8, 128)] {
        let changed = BusConfig {
            input_max_bytes: configured * 1024 * 1024,
            ..one.config().clone()
        };
        let other = Bus::connect(changed, "test/other").await.unwrap();
        other
            .ensure_layout(&SequenceFloors::default())
            .await
            .unwrap();
        assert_eq!(bytes().await, expected * 1024 * 1024);
        other.close().await;
    }
    let stream = context.get_stream(&stream).await.unwrap();
    one.input()
        .append(p0(), entry("a@aa", "h", 0))
        .await
        .unwrap();
    let deleted = stream.delete_message(1).await;
    assert!(deleted.is_err(), "nobody deletes from the middle of a log");
    one.close().await;
}

#[tokio::test]
async fn an_output_log_with_one_subject_is_continued() {
    let config = config(&shared_nats().unwrap().url(), &unique_prefix("subject"));
    let bus = Bus::connect(config, "test/one").await.unwrap();
    let subject = format!("{}.out.{}", bus.names().prefix(), p0());
    let context = jetstream::new(async_nats::connect(&bus.config().url).await.unwrap());
    let before = jetstream::stream::Config {
        name: bus.names().output_stream(p0()),
        subjects: vec![subject.clone()],
        ..jetstream::stream::Config::default()
    };
    context.create_stream(before).await.unwrap();
    let frame = serde_json::to_vec(&OutputFrame::new(1)).unwrap();
    let publish = async || {
        let sent = context.publish(subject.clone(), frame.clone().into()).await;
        sent.unwrap().await
    };
    assert_eq!(publish().await.unwrap().sequence, 1);

    bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
    let log = bus.output(p0());
    let last = log.last().await.unwrap().unwrap();
    assert_eq!((last.seq, last.frame.epoch), (1, 1));
    assert_eq!(log.publish(&OutputFrame::new(2), 1).await, Ok(2));
    assert!(publish().await.is_err(), "an owner of before is shut out");
    bus.close().await;
}

#[tokio::test]
async fn leader_reads_return_message_ids_and_stream_identity() {
    let one = bus("identity").await;
    let two = second(&one).await;
    let stream = one.names().input_stream(p0());
    assert_eq!(one.last_message(&stream).await.unwrap(), None);
    let empty = one.stream_identity(&stream).await.unwrap();
    assert_eq!((empty.first_seq, empty.last_seq), (1, 0));
    let input = one.input();
    input.append(p0(), entry("a@aa", "h", 0)).await.unwrap();
    let id = two.message_id_at(&stream, 1).await.unwrap().unwrap();
    assert!(id.starts_with("test/one/"), "{id}");
    assert_eq!(two.message_id_at(&stream, 2).await.unwrap(), None);
    let last = two.last_message(&stream).await.unwrap().unwrap();
    assert_eq!((last.seq, last.msg_id), (1, Some(id)));
    assert_eq!(
        two.stream_identity(&stream).await.unwrap().created,
        empty.created
    );
    one.close().await;
    two.close().await;
}
