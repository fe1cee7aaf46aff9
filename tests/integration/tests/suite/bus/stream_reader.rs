//! The reader delivers every message exactly once despite lost consumers and server restarts.

use async_nats::jetstream;
use futures::{FutureExt as _, TryStreamExt as _};
use nixfleet_bus::{Message, ReadError, Reader, SequenceFloors, UndecodableMessage};
use nixfleet_harness::unique_prefix;
use nixfleet_harness::{Nats, shared_nats};

use super::{SOON, bus, config, entry, entry_with_closure, p0, read, ready};

/// Appends one message at a time.
async fn append(bus: &nixfleet_bus::Bus, count: usize) {
    let input = bus.input();
    for number in 0..count {
        let appended = input.append(p0(), entry("stable@aa", "h", number)).await;
        appended.unwrap();
    }
}

/// The next message, or why there is none.
async fn next(reader: &mut Reader) -> Result<Vec<Message>, ReadError> {
    let next = tokio::time::timeout(SOON, reader.next_batch(1)).await;
    next.expect("the reader says something soon")
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.seq).collect()
}

#[tokio::test]
async fn a_server_restart_loses_and_repeats_nothing() {
    let mut nats = Nats::start("reader").unwrap();
    let bus = ready(config(&nats.url(), &unique_prefix("restart"))).await;
    let stream = bus.names().input_stream(p0());
    let mut reader = bus.reader(&stream, 1);
    let writing = {
        let bus = bus.clone();
        tokio::spawn(async move { append(&bus, 400).await })
    };
    let mut seen = read(&mut reader, 50).await;
    nats.kill().unwrap();
    nats.restart().unwrap();
    let missing = 400 - seen.len();
    seen.extend(read(&mut reader, missing).await);
    writing.await.unwrap();
    assert_eq!(sequences(&seen), (1..=400).collect::<Vec<_>>());
    bus.close().await;
}

#[tokio::test]
async fn a_waiting_reader_continues_when_the_server_returns() {
    let mut nats = Nats::start("reader").unwrap();
    let bus = ready(config(&nats.url(), &unique_prefix("back"))).await;
    let stream = bus.names().input_stream(p0());
    let mut reader = bus.reader(&stream, 1);
    append(&bus, 1).await;
    read(&mut reader, 1).await;
    let waiting = tokio::spawn(async move { reader.next_batch(1).await });
    nats.kill().unwrap();
    nats.restart().unwrap();
    append(&bus, 1).await;
    // The server has lost the consumer; a missed heartbeat would reveal it after five seconds. The reader's
    // connection may return two seconds later than the writer's.
    let soon = std::time::Duration::from_secs(4);
    let batch = tokio::time::timeout(soon, waiting).await.unwrap().unwrap();
    assert_eq!(sequences(&batch.unwrap()), [2]);
    bus.close().await;
}

#[tokio::test]
async fn dropped_reads_lose_no_message_read_ahead() {
    let bus = bus("ahead").await;
    let stream = bus.names().input_stream(p0());
    // Batches up to 16 KiB are encoded immediately, larger ones on another thread.
    for closure in ["c".to_owned(), "c".repeat(20_000)] {
        let next = bus.stream_identity(&stream).await.unwrap().last_seq + 1;
        let input = bus.input();
        for _ in 0..40 {
            let entry = entry_with_closure("stable@aa", "h", &closure);
            input.append(p0(), entry).await.unwrap();
        }
        let reader = bus.reader(&stream, next).with_batch_bytes(30_000);
        let mut reader = reader.read_ahead(7, |messages| sequences(&messages));
        let mut seen = Vec::new();
        let all = async {
            while seen.len() < 40 {
                // The reading future is dropped repeatedly while another task writes.
                let _dropped = reader
                    .next()
                    .now_or_never()
                    .map(|read| seen.extend(read.unwrap()));
                let worked = reader.read_during(tokio::task::yield_now()).await;
                assert_eq!(worked, ());
                if seen.len() < 40 {
                    seen.extend(reader.next().await.unwrap());
                }
            }
        };
        let read = tokio::time::timeout(SOON, all).await;
        read.expect("the messages come soon");
        assert_eq!(seen, (next..next + 40).collect::<Vec<_>>());
    }
    bus.close().await;
}

#[tokio::test]
async fn deleted_consumers_are_replaced_without_loss_or_repetition() {
    let bus = bus("consumers").await;
    let name = bus.names().input_stream(p0());
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let stream = jetstream::new(client).get_stream(&name).await.unwrap();
    let writing = {
        let bus = bus.clone();
        tokio::spawn(async move { append(&bus, 600).await })
    };
    let mut reader = bus.reader(&name, 1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.extend(read(&mut reader, 60).await);
        let consumers: Vec<_> = stream.consumer_names().try_collect().await.unwrap();
        for consumer in consumers {
            stream.delete_consumer(&consumer).await.unwrap();
        }
    }
    let missing = 600 - seen.len();
    seen.extend(read(&mut reader, missing).await);
    writing.await.unwrap();
    assert_eq!(sequences(&seen), (1..=600).collect::<Vec<_>>());
    assert_eq!(reader.next_seq(), 601);
    bus.close().await;
}

#[tokio::test]
async fn a_reader_starts_at_a_given_sequence_and_can_be_dropped_while_waiting() {
    let bus = bus("start").await;
    append(&bus, 10).await;
    let stream = bus.names().input_stream(p0());
    let mut reader = bus.reader(&stream, 8);
    assert_eq!(sequences(&read(&mut reader, 3).await), [8, 9, 10]);
    let waiting = reader.next_batch(10);
    let timed_out = tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await;
    assert!(timed_out.is_err());
    append(&bus, 2).await;
    assert_eq!(sequences(&read(&mut reader, 2).await), [11, 12]);
    assert_eq!(reader.pending(), 0);
    bus.close().await;
}

#[tokio::test]
async fn a_trimmed_stream_is_an_error() {
    let bus = bus("trimmed").await;
    for seq in 0..12 {
        let letter = UndecodableMessage {
            stream: "S".to_owned(),
            seq,
            subject: "s".to_owned(),
            reason: "test".to_owned(),
            payload: vec![0; 200 * 1024].into(),
        };
        bus.store_dead_letter("test", letter).await.unwrap();
    }
    let stream = bus.names().dead_stream();
    let first = bus.stream_identity(&stream).await.unwrap().first_seq;
    assert!(first > 1);
    let error = next(&mut bus.reader(&stream, 1)).await.unwrap_err();
    let expected = ReadError::Trimmed {
        stream: stream.clone(),
        wanted: 1,
        first,
    };
    assert_eq!(error, expected);
    let kept = next(&mut bus.reader(&stream, first)).await.unwrap();
    assert_eq!(kept[0].seq, first);
    bus.close().await;
}

#[tokio::test]
async fn a_truncated_missing_or_replaced_stream_stops_the_reader() {
    let bus = ready(config(
        &shared_nats().unwrap().url(),
        &unique_prefix("shortened"),
    ))
    .await;
    append(&bus, 3).await;
    let stream = bus.names().input_stream(p0());
    let error = next(&mut bus.reader(&stream, 9)).await.unwrap_err();
    assert!(matches!(error, ReadError::Regressed { last: 3, .. }));
    let error = next(&mut bus.reader("NO_SUCH", 1)).await.unwrap_err();
    assert!(matches!(error, ReadError::Missing { .. }));

    let mut reader = bus.reader(&stream, 1);
    read(&mut reader, 3).await;
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let context = jetstream::new(client);
    context.delete_stream(&stream).await.unwrap();
    let mut floors = SequenceFloors::default();
    floors.raise(&stream, 3);
    bus.ensure_layout(&floors).await.unwrap();
    let error = next(&mut reader).await.unwrap_err();
    assert!(matches!(error, ReadError::Replaced { .. }), "{error}");
    bus.close().await;
}
