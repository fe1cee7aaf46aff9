use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

const MAX: usize = 64 * 1024;

/// JSON documents, each followed by its stored form. Logs keep stored forms, so these lines must stay
/// readable: add lines for new labels, never change one.
const STORED: &str = include_str!("stored.txt");

const EVENT: &str = r#"{"v":1,"entries":[{"v":1,"receivedAt":"2026-05-01T10:00:00.123456789Z","body":{"entry":"HostEvent","rolloutId":"stable@77aa","hostname":"db-3","producer":"agent","event":{"seq":2,"body":{"kind":"ActivationStarted","startedAt":"2026-05-01T10:00:00Z","switchMethod":"switch"}}}}]}"#;

fn stored(json: &str) -> Vec<u8> {
    encode(&Bytes::copy_from_slice(json.as_bytes())).to_vec()
}

/// A labelled zstd frame with any content.
fn labelled(content: &[u8]) -> Vec<u8> {
    let mut context = Compressor::with_dictionary(1, DICTIONARY).unwrap();
    [&[ZSTD_DICTIONARY_1], &*context.compress(content).unwrap()].concat()
}

fn check(stored: impl AsRef<[u8]>, expected: &str) {
    let stored = stored.as_ref();
    let found = match decode(stored, MAX) {
        Ok(json) => format!("{} bytes", json.len()),
        Err(DecodeError::Compressed(what)) => what.to_owned(),
        Err(error) => error.name().to_owned(),
    };
    assert_eq!(found, expected, "{stored:02x?}");
}

#[test]
fn a_label_keeps_its_dictionary_and_what_was_stored_keeps_its_text() {
    let lines: Vec<&str> = STORED.lines().collect();
    let texts = lines.chunks(2).enumerate().map(|(number, pair)| {
        let stored = STANDARD.decode(pair[1]).unwrap();
        (
            format!("text-{number}"),
            decode(&stored, MAX).unwrap().to_vec(),
        )
    });
    let dictionary = ("dictionary".to_owned(), DICTIONARY.to_vec());
    let label = format!("0x{ZSTD_DICTIONARY_1:x}");
    nixfleet_encodings::check("stored-form", label, texts.chain([dictionary]));
}

#[test]
fn the_dictionary_is_lines_of_json() {
    for line in std::str::from_utf8(DICTIONARY).unwrap().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn what_was_stored_is_read() {
    let lines: Vec<&str> = STORED.lines().collect();
    assert!(lines.len() >= 8 && lines.len().is_multiple_of(2));
    for pair in lines.chunks(2) {
        let stored = STANDARD.decode(pair[1]).unwrap();
        assert_eq!(decode(&stored, MAX).unwrap(), pair[0].as_bytes());
        let again = encode(&Bytes::copy_from_slice(pair[0].as_bytes()));
        assert_eq!(decode(&again, MAX).unwrap(), pair[0].as_bytes());
    }
}

#[test]
fn a_frame_of_one_event_shrinks_by_more_than_half() {
    let stored = stored(EVENT);
    assert_eq!(stored[0], ZSTD_DICTIONARY_1);
    assert!(stored.len() * 5 < EVENT.len() * 2, "{}", stored.len());
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    let noise: Vec<u8> = (0..4_000_u32)
        .flat_map(|number| Sha256::digest(number.to_le_bytes()))
        .collect();
    let noise = STANDARD.encode(&noise[..60]);
    for json in ["", "1", "{}", "[1,2]", &noise] {
        assert_eq!(stored(json), json.as_bytes());
    }
}

#[test]
fn a_payload_without_a_label_is_left_as_it_is() {
    for payload in ["", "{", " {}", "\n[", "poison", "\u{1}", "ä"] {
        check(payload, &format!("{} bytes", payload.len()));
    }
    check([0xff, 0xfe], "2 bytes");
}

#[test]
fn an_unknown_label_is_an_error_that_says_what_to_do() {
    for label in LABELS.filter(|label| *label != ZSTD_DICTIONARY_1) {
        check([label], "encoding");
    }
    let error = decode(&[0x82, 1, 2], MAX).unwrap_err().to_string();
    assert!(
        error.contains("0x82") && error.contains("upgrade"),
        "{error}"
    );
}

#[test]
fn hostile_payloads_are_refused_by_name() {
    let complete = stored(EVENT);
    check(&complete, &format!("{} bytes", EVENT.len()));
    check([ZSTD_DICTIONARY_1], "it has no valid header");
    check([ZSTD_DICTIONARY_1, b'{', b'}'], "it has no valid header");
    check(
        [&[ZSTD_DICTIONARY_1], EVENT.as_bytes()].concat(),
        "it has no valid header",
    );
    check(&complete[..complete.len() - 1], "it is not complete");
    check([&complete[..], b"x"].concat(), "it has trailing bytes");
    check(
        [&complete[..], &complete[1..]].concat(),
        "it has trailing bytes",
    );
    check(labelled(b""), "it holds nothing");
    check(labelled(&complete), "it holds a stored payload");
    // A skippable zstd frame.
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x'];
    check(
        [&[ZSTD_DICTIONARY_1], &skipped[..]].concat(),
        "it holds nothing",
    );
    // A frame without its size.
    let mut context = Compressor::with_dictionary(1, DICTIONARY).unwrap();
    context.include_contentsize(false).unwrap();
    let unsized_frame = context.compress(EVENT.as_bytes()).unwrap();
    check(
        [&[ZSTD_DICTIONARY_1], &*unsized_frame].concat(),
        "its size is missing",
    );
}

#[test]
fn a_bomb_is_refused_before_it_takes_memory() {
    check(labelled(&vec![b' '; MAX]), &format!("{MAX} bytes"));
    let bomb = labelled(&vec![b' '; 64 * 1024 * 1024]);
    assert!(bomb.len() < 16 * 1024);
    check(&bomb, "too-large");
    // The size follows label, magic number and descriptor; this one is too small.
    let mut liar = labelled(&vec![b' '; MAX]);
    liar[6..8].copy_from_slice(&[0x10, 0]);
    assert!(decode(&liar, MAX).is_err());
}

#[test]
fn the_size_of_what_cannot_be_decoded_is_that_of_its_bytes() {
    let complete = stored(EVENT);
    assert_eq!(json_bytes(&complete, MAX), EVENT.len());
    for other in [&complete[..3], b"\x82abc", b"{}", b""] {
        assert_eq!(json_bytes(other, MAX), other.len());
    }
    assert_eq!(json_bytes(&complete, 10), complete.len());
}

proptest! {
    #[test]
    fn every_text_round_trips(text in "\\PC{0,2000}", times in 1_usize..40) {
        let json = Bytes::from(text.repeat(times));
        let max = json.len();
        let stored = encode(&json);
        prop_assert!(stored.len() <= json.len());
        prop_assert_eq!(&*decode(&stored, max).unwrap(), &json[..]);
        prop_assert_eq!(json_bytes(&stored, max), max);
    }

    #[test]
    fn damage_is_an_error_or_another_text_within_the_bound(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stored = stored(EVENT);
        let at = at.index(stored.len());
        stored[at] = byte;
        stored.truncate(cut.index(stored.len()) + 1);
        if let Ok(json) = decode(&stored, MAX) {
            prop_assert!(json.len() <= MAX);
        }
    }

    #[test]
    fn any_bytes_behind_the_label_are_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let stored = [&[ZSTD_DICTIONARY_1], &*bytes].concat();
        if let Ok(json) = decode(&stored, MAX) {
            prop_assert!(json.len() <= MAX);
        }
    }
}
