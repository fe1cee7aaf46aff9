//! Fixtures of the tests of this crate.

use std::time::Duration;

use nixfleet_proto::Timestamp;
use serde_json::{Value, json};

use crate::keys::Algorithm;
use crate::release::{Release, verify_release};
use crate::release_bundle::ReleaseBundle;
use crate::sign::SigningKey;
use crate::trust_file::TrustFile;
use crate::{BuiltRelease, ReleaseStamp, build_release};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const COMMIT: &str = "4f1c2d9a00";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn now() -> Timestamp {
    at("2026-05-01T12:00:00Z")
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_secret(Algorithm::Ed25519, &[seed; 32]).unwrap()
}

pub(crate) fn p256_key(seed: u8) -> SigningKey {
    SigningKey::from_secret(Algorithm::EcdsaP256, &[seed; 32]).unwrap()
}

pub(crate) fn trust() -> TrustFile {
    TrustFile::of(key(1).public())
}

/// A complete source: two channels with hosts, one without, edges and a budget.
pub(crate) fn source() -> Value {
    let host = |tags: Value, channel: &str, closure: Value| json!({"system": "x86_64-linux", "tags": tags, "channel": channel, "closureHash": closure, "pubkey": null});
    let channel = |policy: &str| json!({"rolloutPolicy": policy, "reconcileIntervalMinutes": 30, "freshnessWindow": 1440, "signingIntervalMinutes": 30});
    json!({
        "schemaVersion": 1,
        "hosts": {
            "web-01": host(json!(["web", "canary"]), "stable", json!("aaa-nixos-web-01")),
            "web-02": host(json!(["web"]), "stable", json!("bbb-nixos-web-02")),
            "db-01": host(json!(["db"]), "stable", json!("ccc-nixos-db-01")),
            "spare": host(json!([]), "stable", json!(null)),
            "lab-01": host(json!(["web"]), "edge", json!("ddd-nixos-lab-01")),
        },
        "channels": {"stable": channel("careful"), "edge": channel("fast"), "empty": channel("fast")},
        "rolloutPolicies": {
            "careful": {
                "strategy": "waves",
                "healthGate": {"systemdFailedUnits": {"max": 0}},
                "onHealthFailure": "rollback-and-halt",
                "waves": [
                    {"selector": {"tags": ["canary"]}, "soakMinutes": 10},
                    {"selector": {"and": [{"tags": ["web"]}, {"not": {"tags": ["canary"]}}]}, "soakMinutes": 30},
                    {"selector": {"all": true}, "soakMinutes": 60},
                ],
            },
            "fast": {"strategy": "all-at-once", "onHealthFailure": "halt"},
        },
        "edges": [{"gated": "web-01", "gates": "db-01"}],
        "channelEdges": [{"before": "edge", "after": "stable", "reason": "canaries first"}],
        "disruptionBudgets": [{"selector": {"tags": ["web"]}, "maxInFlight": 1}],
    })
}

/// The source with one value replaced; the path is a JSON pointer whose last key may be new.
pub(crate) fn source_with(pointer: &str, value: Value) -> Value {
    let mut source = source();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    source.pointer_mut(parent).unwrap()[key] = value;
    source
}

pub(crate) fn stamp(signed_at: &str) -> ReleaseStamp {
    ReleaseStamp {
        signed_at: at(signed_at),
        commit: Some(COMMIT.to_owned()),
    }
}

pub(crate) fn build_from(source: &Value, stamp: &ReleaseStamp) -> BuiltRelease {
    build_release(source.to_string().as_bytes(), stamp, &key(1)).unwrap()
}

pub(crate) fn bundle() -> ReleaseBundle {
    build_from(&source(), &stamp("2026-05-01T11:59:00Z")).bundle
}

pub(crate) fn verified(bundle: &ReleaseBundle) -> Release {
    verify_release(bundle, &trust(), now(), DAY).unwrap()
}

/// Signs a document of any shape with the trusted key.
pub(crate) fn signed(document: &Value) -> crate::Signed {
    let (bytes, signature) = key(1).sign_json(document.to_string().as_bytes()).unwrap();
    crate::Signed {
        bytes,
        signature: signature.to_vec(),
    }
}
