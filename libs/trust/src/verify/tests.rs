use nixfleet_proto::fleet::{BootstrapNonces, Fleet, Revocations, RolloutManifest};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::canonical_json::canonical_hash;
use crate::keys::TrustedKey;
use crate::release_bundle::Signed;
use crate::test_release::{DAY, at, bundle, key, now, p256_key, signed, trust};

fn fresh() -> Freshness {
    Freshness {
        now: now(),
        window: DAY,
    }
}

fn check_document(document: &Value) -> Result<Verified<Revocations>, VerifyError> {
    let Signed { bytes, signature } = signed(document);
    verify(&bytes, &signature, &trust().release_keys(now()), fresh())
}

fn name<T: std::fmt::Debug>(result: Result<Verified<T>, VerifyError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.name(),
    }
}

fn revocations(signed_at: &str) -> Value {
    json!({"schemaVersion": 1, "revocations": [], "meta": {"schemaVersion": 1, "signedAt": signed_at, "ciCommit": null}})
}

#[test]
fn a_signed_fresh_artifact_is_believed_in_any_layout() {
    let Signed { bytes, signature } = signed(&revocations("2026-05-01T11:00:00Z"));
    let pretty: Value = serde_json::from_slice(&bytes).unwrap();
    let pretty = serde_json::to_vec_pretty(&pretty).unwrap();
    let keys = trust().release_keys(now());
    let verified = verify::<Revocations>(&pretty, &signature, &keys, fresh()).unwrap();
    assert_eq!(verified.signed_at(), at("2026-05-01T11:00:00Z"));
    assert_eq!(verified.hash(), &canonical_hash(&bytes).unwrap());
}

#[test]
fn unknown_fields_are_ignored_but_signed() {
    let mut document = revocations("2026-05-01T11:00:00Z");
    document["future"] = json!({"x": [1]});
    assert_eq!(name(check_document(&document)), "ok");
    let Signed { signature, .. } = signed(&document);
    document["future"] = json!({"x": [2]});
    let keys = trust().release_keys(now());
    let result = verify::<Revocations>(document.to_string().as_bytes(), &signature, &keys, fresh());
    assert_eq!(name(result), "BadSignature");
}

#[test]
fn every_kind_verifies_as_itself_and_not_as_another() {
    let bundle = bundle();
    let keys = trust().release_keys(now());
    let rollout = bundle.rollouts.values().next().unwrap();
    let nonces = signed(&json!({"schemaVersion": 1, "bootstrapNonces": [
        {"nonce": "00", "hostname": "web-01", "expiresAt": "2026-06-01T00:00:00Z"}],
        "meta": {"schemaVersion": 1, "signedAt": "2026-05-01T11:00:00Z"}}));
    let fleet = &bundle.fleet;
    let of = |signed: &Signed| {
        let (bytes, signature) = (&signed.bytes, &signed.signature);
        [
            name(verify::<Fleet>(bytes, signature, &keys, fresh())),
            name(verify::<RolloutManifest>(bytes, signature, &keys, fresh())),
            name(verify::<Revocations>(bytes, signature, &keys, fresh())),
            name(verify::<BootstrapNonces>(bytes, signature, &keys, fresh())),
        ]
    };
    assert_eq!(of(fleet), ["ok", "Parse", "Parse", "Parse"]);
    assert_eq!(of(rollout), ["Parse", "ok", "Parse", "Parse"]);
    assert_eq!(of(&nonces), ["Parse", "Parse", "Parse", "ok"]);
}

#[test]
fn steps_fail_in_their_order() {
    let good = signed(&revocations("2026-05-01T11:00:00Z"));
    let keys = trust().release_keys(now());
    let none = ActiveKeys::default();
    let rsa = ActiveKeys {
        keys: vec![TrustedKey {
            algorithm: "rsa".into(),
            public: String::new(),
        }],
        reject_before: None,
    };
    let check = |bytes: &[u8], keys: &ActiveKeys, expected: &str| {
        let result = verify::<Revocations>(bytes, &good.signature, keys, fresh());
        assert_eq!(
            name(result),
            expected,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    };
    // 1 before 2, 2 before 3, 3 before 4.
    check(b"{", &none, "NoTrustRoots");
    check(b"{", &rsa, "Parse");
    check(b"\xff", &keys, "Parse");
    check(&good.bytes[..good.bytes.len() - 1], &keys, "Parse");
    check(b"{\"a\":1,\"a\":1}", &rsa, "Canonicalize");
    check(b"[9007199254740993]", &keys, "Canonicalize");
    check(b"\"\\ud800\"", &keys, "Canonicalize");
    check(&b"[".repeat(1000), &keys, "Parse");
    check(
        [b"[".repeat(1000), b"]".repeat(1000)].concat().as_slice(),
        &keys,
        "Canonicalize",
    );
    check(&good.bytes, &rsa, "UnsupportedAlgorithm");
    check(b"{}", &keys, "BadSignature");
    check(&good.bytes, &keys, "ok");
}

#[test]
fn later_steps_fail_in_their_order() {
    let check = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut document = revocations("2026-05-01T11:00:00Z");
        change(&mut document);
        assert_eq!(name(check_document(&document)), expected, "{document}");
    };
    // 5 before 6 before 7 before 9.
    check(&|d| d["revocations"] = json!({}), "Parse");
    check(&|d| d["meta"] = json!(null), "Parse");
    check(&|d| d["schemaVersion"] = json!("1"), "Parse");
    check(&|d| d["schemaVersion"] = json!(-1), "Parse");
    check(&|d| d["schemaVersion"] = json!(1.5), "Parse");
    check(&|d| d["meta"]["signedAt"] = json!("yesterday"), "Parse");
    check(&|d| *d = json!([]), "Parse");
    check(
        &|d| {
            d["schemaVersion"] = json!(2);
            d["meta"]["signedAt"] = json!(null);
        },
        "SchemaVersionUnsupported",
    );
    check(
        &|d| d["schemaVersion"] = json!(0),
        "SchemaVersionUnsupported",
    );
    check(&|d| d["meta"]["signedAt"] = json!(null), "NotSigned");
    check(&|d| d["meta"] = json!({"schemaVersion": 1}), "NotSigned");
    check(
        &|d| d["meta"]["signedAt"] = json!("2020-01-01T00:00:00Z"),
        "Stale",
    );
    check(
        &|d| d["meta"]["signedAt"] = json!("9999-12-31T23:59:59Z"),
        "FutureDated",
    );
}

#[test]
fn times_are_compared_with_equality_and_slack() {
    let check = |signed_at: &str, reject_before: Option<&str>, expected: &str| {
        let Signed { bytes, signature } = signed(&revocations(signed_at));
        let mut keys = trust().release_keys(now());
        keys.reject_before = reject_before.map(at);
        let result = verify::<Revocations>(&bytes, &signature, &keys, fresh());
        assert_eq!(name(result), expected, "{signed_at} {reject_before:?}");
    };
    check("2026-04-30T12:00:00Z", None, "ok");
    check("2026-04-30T11:59:00Z", None, "ok");
    check("2026-04-30T11:58:59.999999999Z", None, "Stale");
    check("2026-05-01T12:01:00Z", None, "ok");
    check("2026-05-01T12:01:00.000000001Z", None, "FutureDated");
    check("2026-05-01T14:01:00+02:00", None, "ok");
    check("2026-05-01T11:00:00Z", Some("2026-05-01T11:00:00Z"), "ok");
    check(
        "2026-05-01T11:00:00Z",
        Some("2026-05-01T11:00:00.001Z"),
        "RejectedBeforeTimestamp",
    );
    // 8 before 9.
    check(
        "2020-01-01T00:00:00Z",
        Some("2026-01-01T00:00:00Z"),
        "RejectedBeforeTimestamp",
    );
}

#[test]
fn extreme_times_and_windows_do_not_panic() {
    let extremes = [Timestamp::MIN_UTC, now(), Timestamp::MAX_UTC];
    for signed_at in extremes {
        for clock in extremes {
            for window in [Duration::ZERO, DAY, Duration::MAX] {
                let freshness = Freshness { now: clock, window };
                let result = check_time(signed_at, Some(clock), freshness);
                assert_eq!(result.is_ok(), signed_at == clock);
                let result = check_time(signed_at, None, freshness);
                let endless = window == Duration::MAX && signed_at <= clock;
                assert_eq!(result.is_ok(), signed_at == clock || endless);
            }
        }
    }
}

#[test]
fn the_key_decides_the_algorithm_not_the_artifact() {
    let mut document = revocations("2026-05-01T11:00:00Z");
    document["meta"]["signatureAlgorithm"] = json!("none");
    assert_eq!(name(check_document(&document)), "ok");
    let (bytes, signature) = p256_key(3)
        .sign_json(document.to_string().as_bytes())
        .unwrap();
    let keys = crate::TrustFile::of(p256_key(3).public()).release_keys(now());
    assert_eq!(
        name(verify::<Revocations>(&bytes, &signature, &keys, fresh())),
        "ok"
    );
    let wrong_name = TrustedKey {
        algorithm: "ed25519".into(),
        ..p256_key(3).public()
    };
    let keys = crate::TrustFile::of(wrong_name).release_keys(now());
    assert_eq!(
        name(verify::<Revocations>(&bytes, &signature, &keys, fresh())),
        "BadSignature"
    );
}

#[test]
fn a_policy_all_at_once_without_waves_gets_one() {
    let bundle = bundle();
    let keys = trust().release_keys(now());
    let fleet: Verified<Fleet> =
        verify(&bundle.fleet.bytes, &bundle.fleet.signature, &keys, fresh()).unwrap();
    let fleet = fleet.into_payload();
    let waves = &fleet.rollout_policies["fast"].waves;
    assert_eq!(waves.len(), 1);
    assert!(waves[0].selector.all);
    assert_eq!(waves[0].soak_minutes, Some(nixfleet_proto::Minutes::ZERO));
    assert_eq!(fleet.rollout_policies["careful"].waves.len(), 3);
    assert!(
        !String::from_utf8(bundle.fleet.bytes)
            .unwrap()
            .contains("\"all-at-once\",\"waves\":[{")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_single_byte_can_change(position in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let Signed { bytes, signature } = signed(&revocations("2026-05-01T11:00:00Z"));
        let mut broken = bytes.clone();
        broken[position.index(bytes.len())] ^= 1 << bit;
        let keys = trust().release_keys(now());
        // A changed byte that leaves the canonical form alone (a space for a space) does not exist
        // in canonical bytes.
        prop_assert!(verify::<Revocations>(&broken, &signature, &keys, fresh()).is_err());
        let mut forged = signature.clone();
        forged[position.index(64)] ^= 1 << bit;
        let result = verify::<Revocations>(&bytes, &forged, &keys, fresh());
        prop_assert_eq!(name(result), "BadSignature");
        prop_assert_ne!(key(1).sign(&broken).to_vec(), signature);
    }
}
