use serde_json::json;

use super::*;
use crate::test_release::{at, key, now};

fn named(name: &str) -> TrustedKey {
    TrustedKey {
        algorithm: "ed25519".into(),
        public: name.into(),
    }
}

fn names(slot: &KeySlot, now: Timestamp) -> Vec<String> {
    slot.active(now)
        .keys
        .into_iter()
        .map(|key| key.public)
        .collect()
}

#[test]
fn active_keys_follow_the_rotation() {
    let slot = KeySlot {
        current: Some(named("current")),
        previous: Some(named("previous")),
        successor: Some(named("successor")),
        retire_at: Some(at("2026-05-01T00:00:00Z")),
        reject_before: None,
    };
    let all = ["current", "previous", "successor"];
    assert_eq!(names(&slot, at("2026-04-30T23:59:59Z")), all);
    // From the deadline on the successor waits to become `current`.
    assert_eq!(names(&slot, at("2026-05-01T00:00:00Z")), all[..2]);
    let without_deadline = KeySlot {
        retire_at: None,
        ..slot.clone()
    };
    assert_eq!(
        names(&without_deadline, at("2026-04-01T00:00:00Z")),
        all[..2]
    );
    let only_successor = KeySlot {
        current: None,
        previous: None,
        ..slot
    };
    assert_eq!(
        names(&only_successor, at("2026-04-01T00:00:00Z")),
        ["successor"]
    );
    assert!(names(&KeySlot::default(), now()).is_empty());
}

#[test]
fn a_trust_file_is_read_with_its_defaults() {
    let file = TrustFile::parse(
        br#"{"schemaVersion":1,"ciReleaseKey":{"current":{"algorithm":"ed25519","public":"x"},"future":1}}"#,
    )
    .unwrap();
    assert_eq!(file, TrustFile::of(named("x")));
    let full = json!({
        "schemaVersion": 1,
        "ciReleaseKey": {"current": null, "previous": {"algorithm": "ecdsa-p256", "public": "y"},
            "rejectBefore": "2026-01-01T00:00:00+02:00"},
        "cacheKeys": ["cache:abc"],
        "orgRootKey": {"current": {"algorithm": "ed25519", "public": "z"}},
        "rootCaPem": "pem", "issuanceCaPems": ["a", "b"],
    });
    let file = TrustFile::parse(full.to_string().as_bytes()).unwrap();
    assert_eq!(
        file.release_keys(now()).reject_before,
        Some(at("2025-12-31T22:00:00Z"))
    );
    assert_eq!(file.org_root_keys(now()).keys.len(), 1);
    let again = serde_json::to_vec(&file).unwrap();
    assert_eq!(TrustFile::parse(&again).unwrap(), file);
}

#[test]
fn a_broken_trust_file_is_refused() {
    let check = |text: &str, expected: &str| {
        let error = TrustFile::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    };
    check("", "malformed");
    check(
        r#"{"schemaVersion":1,"schemaVersion":1,"ciReleaseKey":{}}"#,
        "ambiguous",
    );
    check(r#"{"schemaVersion":1}"#, "missing");
    check(
        r#"{"schemaVersion":2,"ciReleaseKey":{}}"#,
        "schema version 2",
    );
    check(
        r#"{"schemaVersion":1,"ciReleaseKey":{"current":{"algorithm":7}}}"#,
        "invalid fields",
    );
}

#[test]
fn notices_name_what_needs_a_person() {
    let mut file = TrustFile::of(key(1).public());
    assert!(file.notices(now()).is_empty());
    file.ci_release_key.previous = Some(named("bad"));
    file.ci_release_key.successor = Some(key(2).public());
    file.ci_release_key.retire_at = Some(now());
    file.org_root_key = Some(KeySlot {
        successor: Some(key(2).public()),
        ..KeySlot::default()
    });
    let notices = file.notices(now());
    let names: Vec<_> = notices
        .iter()
        .map(|notice| (notice.slot, notice.name()))
        .collect();
    assert_eq!(
        names,
        [
            ("ciReleaseKey", "unusable-key"),
            ("ciReleaseKey", "rotation-due"),
            ("orgRootKey", "successor-without-deadline"),
            ("orgRootKey", "no-key"),
        ]
    );
    assert!(
        notices[0]
            .to_string()
            .starts_with("ciReleaseKey.previous is skipped")
    );
}
