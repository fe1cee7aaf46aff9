use serde_json::json;

use super::*;
use crate::rollout_manifest::project;
use crate::test_release::{build_from, bundle, source, source_with, stamp, verified};
use nixfleet_proto::{Minutes, OnHealthFailure};

fn fleet() -> Fleet {
    verified(&bundle()).fleet().payload().clone()
}

fn hash(text: &str) -> ManifestHash {
    ManifestHash::from(text)
}

#[test]
fn a_rollout_pins_policy_waves_hosts_and_budgets() {
    let bundle = bundle();
    let signed = &bundle.rollouts["stable"];
    let hash = canonical_hash(&signed.bytes).unwrap();
    assert_eq!(
        UnpinnedManifest::read(&signed.bytes, &hash)
            .unwrap()
            .fleet_hash(),
        &canonical_hash(&bundle.fleet.bytes).unwrap()
    );
    let manifest = pin(&signed.bytes, &bundle.fleet.bytes, &hash).unwrap();
    assert_eq!(manifest.rollout_id.channel(), ChannelName::from("stable"));
    let pinned = manifest.pinned;
    assert_eq!(pinned.on_health_failure, OnHealthFailure::RollbackAndHalt);
    let soaks: Vec<u64> = pinned
        .waves
        .iter()
        .map(|wave| wave.soak_minutes.seconds() / 60)
        .collect();
    assert_eq!(soaks, [10, 30, 60]);
    assert!(pinned.host_set.iter().all(|host| host.staged));
    assert_eq!(pinned.host_set.len(), 3);
    assert_eq!(pinned.disruption_budgets.len(), 1);

    let edge = &bundle.rollouts["edge"];
    let pinned = pin(
        &edge.bytes,
        &bundle.fleet.bytes,
        &canonical_hash(&edge.bytes).unwrap(),
    )
    .unwrap()
    .pinned;
    assert_eq!(pinned.waves.len(), 1);
    assert_eq!(pinned.waves[0].soak_minutes, Minutes::ZERO);
}

#[test]
fn soak_comes_from_the_policy_and_not_from_the_resolved_wave() {
    let waves = json!({"stable": [{"hosts": ["web-01", "web-02", "db-01"], "soakMinutes": 999}]});
    let built = build_from(
        &source_with("/waves", waves),
        &stamp("2026-05-01T11:59:00Z"),
    );
    let signed = &built.bundle.rollouts["stable"];
    let hash = canonical_hash(&signed.bytes).unwrap();
    let manifest = pin(&signed.bytes, &built.bundle.fleet.bytes, &hash).unwrap();
    let pinned = manifest.pinned;
    assert_eq!(pinned.soak_minutes(0), Minutes::from_minutes(10));
}

#[test]
fn a_host_in_no_wave_is_unstaged_only_where_waves_are_declared() {
    let pinned_with = |waves: serde_json::Value| {
        let built = build_from(
            &source_with("/waves", waves),
            &stamp("2026-05-01T11:59:00Z"),
        );
        let signed = &built.bundle.rollouts["stable"];
        let hash = canonical_hash(&signed.bytes).unwrap();
        let manifest = pin(&signed.bytes, &built.bundle.fleet.bytes, &hash).unwrap();
        manifest.pinned
    };
    let staged = |pinned: &Pinned| -> Vec<(u32, bool)> {
        pinned
            .host_set
            .iter()
            .map(|host| (host.wave_index, host.staged))
            .collect()
    };
    let some = pinned_with(
        json!({"stable": [{"hosts": [], "soakMinutes": 0}, {"hosts": ["web-01"], "soakMinutes": 0}]}),
    );
    assert_eq!(staged(&some), [(0, false), (1, true), (0, false)]);
    let none = pinned_with(json!({"stable": []}));
    assert_eq!(staged(&none), [(0, true), (0, true), (0, true)]);
}

#[test]
fn pin_refuses_other_bytes_than_the_hashes_name() {
    let bundle = bundle();
    let signed = &bundle.rollouts["stable"];
    let good = canonical_hash(&signed.bytes).unwrap();
    let check = |manifest: &[u8], fleet: &[u8], hash: &ManifestHash, expected: &str| {
        let error = pin(manifest, fleet, hash).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        &signed.bytes,
        &bundle.fleet.bytes,
        &hash("00"),
        "rollout manifest has the hash",
    );
    let other = build_from(&source(), &stamp("2026-05-01T11:58:00Z"))
        .bundle
        .fleet;
    check(&signed.bytes, &other.bytes, &good, "fleet has the hash");
    check(b"{", &bundle.fleet.bytes, &good, "no canonical form");
    let no_manifest = canonical_hash(b"{}").unwrap();
    check(
        b"{}",
        &bundle.fleet.bytes,
        &no_manifest,
        "not a rollout manifest",
    );
}

#[test]
fn a_wave_without_soak_cannot_be_pinned() {
    let mut fleet = fleet();
    let manifest = project(&fleet, &hash("f"), &"stable".into())
        .unwrap()
        .unwrap();
    fleet
        .rollout_policies
        .get_mut("careful")
        .unwrap()
        .waves
        .truncate(2);
    let error = pin_verified(&manifest, &fleet).unwrap_err();
    assert!(
        matches!(error, PinError::SoakMissing { wave: 2, .. }),
        "{error}"
    );
    fleet.rollout_policies.get_mut("careful").unwrap().waves[1].soak_minutes = None;
    let error = pin_verified(&manifest, &fleet).unwrap_err();
    assert!(
        matches!(error, PinError::SoakMissing { wave: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_fleet_with_undecodable_hosts_pins_nothing() {
    let bundle = bundle();
    let mut fleet: serde_json::Value = serde_json::from_slice(&bundle.fleet.bytes).unwrap();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&bundle.rollouts["stable"].bytes).unwrap();
    let mut refused = |host: serde_json::Value| {
        fleet["hosts"]["web-01"] = host;
        let fleet = fleet.to_string();
        serde_json::from_str::<Fleet>(&fleet).unwrap_err();
        let fleet_hash = canonical_hash(fleet.as_bytes()).unwrap();
        manifest["fleetResolvedHash"] = json!(fleet_hash);
        let manifest = manifest.to_string();
        let hash = canonical_hash(manifest.as_bytes()).unwrap();
        let error = pin(manifest.as_bytes(), fleet.as_bytes(), &hash).unwrap_err();
        assert!(
            matches!(error, PinError::Shape { kind: "fleet", .. }),
            "{error}"
        );
    };
    refused(json!(null));
    refused(json!({ "system": "x86_64-linux" }));
    refused(json!({
        "system": "x86_64-linux", "tags": [7], "channel": "stable", "closureHash": null,
        "pubkey": null
    }));
}
