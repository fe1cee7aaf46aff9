//! The stored form of frames: compressed ones beside plain ones of before, and their sizes.

use async_nats::jetstream;
use bytes::Bytes;
use nixfleet_bus::{Bus, MAX_OUTPUT_FRAME_BYTES, Message, OutputLog, decode_input, decode_output};
use nixfleet_proto::{InputFrame, LAYOUT_VERSION, OutputFrame};

use super::{bus, entry, p0, read};

async fn stream(bus: &Bus, name: &str) -> jetstream::stream::Stream {
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    jetstream::new(client).get_stream(name).await.unwrap()
}

/// Publishes what a release of before would have.
async fn publish_plain(bus: &Bus, subject: String, frame: &impl serde::Serialize) {
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let payload = serde_json::to_vec(frame).unwrap();
    let context = jetstream::new(client);
    let sent = context.publish(subject, payload.into()).await;
    sent.unwrap().await.unwrap();
}

/// The first bytes of the payloads as the server has them.
async fn first_bytes(bus: &Bus, name: &str, messages: &[Message]) -> Vec<u8> {
    let stream = stream(bus, name).await;
    let mut first = Vec::new();
    for message in messages {
        let raw = stream.get_raw_message(message.seq).await.unwrap();
        first.push(raw.payload[0]);
    }
    first
}

/// Checks that the server counts as many bytes as the messages have.
async fn assert_counted(bus: &Bus, name: &str, messages: &[Message]) {
    let stored: usize = messages.iter().map(|message| message.stored_bytes).sum();
    let info = stream(bus, name).await.get_info().await.unwrap();
    assert_eq!(info.state.bytes, stored as u64, "{name}");
}

#[tokio::test]
async fn compressed_and_plain_input_frames_are_read_together() {
    let bus = bus("encoded_input").await;
    let name = bus.names().input_stream(p0());
    let input = bus.input();
    let one = entry("stable@4f1c2a9be07d", "web-01.example.org", 1);
    input.append(p0(), one.clone()).await.unwrap();
    let subject = bus.names().input(p0(), &one.body);
    let frame = InputFrame {
        v: LAYOUT_VERSION,
        entries: vec![one.clone()],
    };
    publish_plain(&bus, subject, &frame).await;
    input.append_all(p0(), vec![one; 40]).await.unwrap();

    let last = bus.stream_identity(&name).await.unwrap().last_seq;
    let messages = read(&mut bus.reader(&name, 1), last as usize).await;
    let first = first_bytes(&bus, &name, &messages).await;
    assert_eq!(first[..2], [0x81, b'{']);
    assert_eq!(decode_input(&messages[0]).unwrap(), frame);
    assert_eq!(decode_input(&messages[1]).unwrap(), frame);
    let entries = messages
        .iter()
        .map(|message| decode_input(message).unwrap().entries.len());
    assert_eq!(entries.sum::<usize>(), 42);
    assert!(messages.iter().all(|message| message.payload[0] == b'{'));
    assert_counted(&bus, &name, &messages).await;
    bus.close().await;
}

#[tokio::test]
async fn compressed_and_plain_output_frames_are_read_together() {
    let bus = bus("encoded_output").await;
    let name = bus.names().output_stream(p0());
    let frame = |epoch| OutputFrame {
        state_hash: Some("0123456789abcdef".repeat(30_000)),
        ..OutputFrame::new(epoch)
    };
    bus.output(p0()).publish(&frame(1), 0).await.unwrap();
    publish_plain(&bus, bus.names().output(p0(), "before"), &frame(2)).await;
    let log = bus.output(p0());
    let last = log.last().await.unwrap().unwrap();
    assert_eq!((last.seq, last.frame.epoch), (2, 2));
    log.publish(&frame(3), 2).await.unwrap();
    assert_eq!(log.last().await.unwrap().unwrap().frame, frame(3));

    // On another thread, and on this one.
    let mut ahead = bus.reader(&name, 1).read_ahead(1, |messages| messages);
    let mut messages = Vec::new();
    while messages.len() < 3 {
        messages.extend(ahead.next().await.unwrap());
    }
    assert_eq!(messages, read(&mut bus.reader(&name, 1), 3).await);
    let epochs = messages
        .iter()
        .map(|message| decode_output(message).unwrap().epoch);
    assert_eq!(epochs.collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        first_bytes(&bus, &name, &messages).await,
        [0x81, b'{', 0x81]
    );
    assert!(messages[0].stored_bytes * 50 < messages[1].stored_bytes);
    assert_counted(&bus, &name, &messages).await;
    bus.close().await;
}

#[tokio::test]
async fn a_batch_ends_where_its_json_is_large_enough() {
    let bus = bus("encoded_batch").await;
    let name = bus.names().output_stream(p0());
    let log = bus.output(p0());
    // Far smaller in the stream than in memory.
    let payload = Bytes::from(vec![b' '; MAX_OUTPUT_FRAME_BYTES]);
    let payload = OutputLog::encode(payload).await.unwrap();
    for seq in 0..40 {
        log.publish_stored(payload.clone(), seq, None)
            .await
            .unwrap();
    }
    let mut reader = bus.reader(&name, 1);
    let mut seen = 0;
    while seen < 40 {
        let batch = reader.next_batch(64).await.unwrap();
        let bytes: usize = batch.iter().map(|message| message.payload.len()).sum();
        assert!(bytes < bus.config().reader_batch_bytes + MAX_OUTPUT_FRAME_BYTES);
        seen += batch.len();
    }
    bus.close().await;
}
