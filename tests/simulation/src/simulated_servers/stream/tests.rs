use super::*;

fn message(id: &str, expected_last: Option<u64>) -> NewMessage {
    NewMessage {
        msg_id: id.to_owned(),
        subject: "s".to_owned(),
        payload: Bytes::copy_from_slice(id.as_bytes()),
        fence: expected_last.map(|seq| Fence { seq, subject: None }),
    }
}

fn store(
    stream: &mut Stream,
    message: NewMessage,
    retry_order: RetryCheckOrder,
) -> Result<Ack, AppendRefusal> {
    stream.publish(message, retry_order, Timestamp::UNIX_EPOCH)
}

fn stream() -> Stream {
    let mut stream = Stream::new(Timestamp::UNIX_EPOCH, 1, 1_000);
    for (id, expected) in [("a", 0), ("b", 1)] {
        let done = store(
            &mut stream,
            message(id, Some(expected)),
            RetryCheckOrder::FenceFirst,
        );
        assert!(done.is_ok());
    }
    stream
}

#[test]
fn sequences_rise_by_one_and_fences_hold() {
    let mut stream = stream();
    let refused = store(&mut stream, message("c", Some(1)), RetryCheckOrder::IdFirst);
    assert_eq!(refused, Err(AppendRefusal::LastSequence(2)));
    let unfenced = store(&mut stream, message("c", None), RetryCheckOrder::IdFirst);
    assert_eq!(unfenced.unwrap().seq, 3);
    assert_eq!(stream.get(3).unwrap().msg_id, "c");
    assert!(stream.get(0).is_none() && stream.get(4).is_none());
    assert_eq!(stream.from(2, 1).count(), 1);
}

#[test]
fn a_retry_of_a_stored_message_is_refused_or_called_a_duplicate() {
    let mut stream = stream();
    let retry = || message("b", Some(1));
    let one = store(&mut stream, retry(), RetryCheckOrder::FenceFirst);
    assert_eq!(one, Err(AppendRefusal::LastSequence(2)));
    let three = store(&mut stream, retry(), RetryCheckOrder::IdFirst);
    let duplicate = Ack {
        seq: 2,
        duplicate: true,
    };
    assert_eq!(three, Ok(duplicate));
    let unfenced = store(&mut stream, message("a", None), RetryCheckOrder::FenceFirst);
    assert_eq!(unfenced.unwrap().seq, 1);
    assert_eq!(stream.last_seq(), 2);
}

#[test]
fn a_stream_that_lost_its_end_uses_sequences_again() {
    let mut stream = stream();
    assert_eq!(stream.lose_tail(1).len(), 1);
    assert_eq!(stream.last_seq(), 1);
    let other = store(&mut stream, message("c", Some(1)), RetryCheckOrder::IdFirst);
    assert_eq!(other.unwrap().seq, 2);
    // What was lost is stored again, and is no duplicate.
    let again = store(&mut stream, message("b", None), RetryCheckOrder::IdFirst);
    assert_eq!(again.unwrap().seq, 3);
    assert_eq!(stream.lose_tail(9).len(), 3);
    assert_eq!(stream.last_seq(), 0);
}

#[test]
fn another_message_at_the_expected_sequence_does_not_hold() {
    let mut stream = stream();
    let behind = |subject: &str| NewMessage {
        fence: Some(Fence {
            seq: 2,
            subject: Some(subject.to_owned()),
        }),
        ..message("c", None)
    };
    let refused = store(&mut stream, behind("t"), RetryCheckOrder::FenceFirst);
    assert_eq!(refused, Err(AppendRefusal::LastSequence(2)));
    let stored = store(&mut stream, behind("s"), RetryCheckOrder::FenceFirst);
    assert_eq!(stored.unwrap().seq, 3);
}

#[test]
fn a_stream_made_anew_begins_above_what_was_there() {
    let mut stream = Stream::new(Timestamp::UNIX_EPOCH, 50, 1_000);
    assert_eq!((stream.first_seq(), stream.last_seq()), (50, 49));
    let behind_none = store(
        &mut stream,
        message("a", Some(49)),
        RetryCheckOrder::FenceFirst,
    );
    assert!(behind_none.is_err(), "there is no message 49");
    let first = store(
        &mut stream,
        message("a", Some(0)),
        RetryCheckOrder::FenceFirst,
    );
    assert_eq!(first.unwrap().seq, 50);
}

#[test]
fn a_full_stream_refuses_until_it_is_trimmed() {
    let size = OVERHEAD_BYTES + 2;
    let mut stream = Stream::new(Timestamp::UNIX_EPOCH, 1, 2 * size);
    for id in ["a", "b"] {
        store(&mut stream, message(id, None), RetryCheckOrder::IdFirst).unwrap();
    }
    let again = store(&mut stream, message("a", None), RetryCheckOrder::IdFirst);
    assert!(again.unwrap().duplicate, "it needs no room");
    let full = store(&mut stream, message("c", None), RetryCheckOrder::IdFirst);
    assert_eq!(full, Err(AppendRefusal::Full));
    let fenced = store(&mut stream, message("c", Some(1)), RetryCheckOrder::IdFirst);
    assert_eq!(fenced, Err(AppendRefusal::LastSequence(2)));
    assert_eq!(stream.trim(2), 1);
    assert_eq!(stream.usage().bytes, size);
    assert_eq!((stream.first_seq(), stream.last_seq()), (2, 2));
    assert!(stream.get(1).is_none());
    let stored = store(&mut stream, message("c", Some(2)), RetryCheckOrder::IdFirst);
    assert_eq!(stored.unwrap().seq, 3);
}
