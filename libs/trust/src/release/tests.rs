use serde_json::{Value, json};

use super::*;
use crate::test_release::{
    DAY, at, build_from, bundle, key, now, signed, source, source_with, stamp, trust, verified,
};

fn refused(bundle: &ReleaseBundle) -> ReleaseError {
    verify_release(bundle, &trust(), now(), DAY).unwrap_err()
}

/// The bundle with one rollout manifest changed and signed again.
fn with_manifest(channel: &str, change: impl FnOnce(&mut Value)) -> ReleaseBundle {
    let mut bundle = bundle();
    let entry = bundle.rollouts.get_mut(channel).unwrap();
    let mut document: Value = serde_json::from_slice(&entry.bytes).unwrap();
    change(&mut document);
    *entry = signed(&document);
    bundle
}

#[test]
fn a_complete_release_is_verified_and_announced() {
    let bundle = bundle();
    let release = verified(&bundle);
    assert_eq!(release.signed_at(), at("2026-05-01T11:59:00Z"));
    let ids: Vec<&str> = release
        .content()
        .rollouts
        .values()
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!(ids, ["edge@4f1c2d9a00", "stable@4f1c2d9a00"]);
    let announcement = release.announcement();
    assert_eq!(announcement.fleet.hash, *release.fleet().hash());
    assert_eq!(
        announcement.rollouts["edge"].rollout_id.as_str(),
        "edge@4f1c2d9a00"
    );
    // What is announced and stored gives the release back.
    let stored = release.objects(&bundle).map(|(hash, _)| hash);
    let named = announcement.artifacts().map(|artifact| &artifact.hash);
    assert_eq!(stored.collect::<Vec<_>>(), named.collect::<Vec<_>>());
    let objects = release
        .objects(&bundle)
        .map(|(_, bytes)| Some(bytes.to_vec()));
    let again = ReleaseBundle::assemble(&announcement, objects).unwrap();
    assert_eq!(again, bundle);
    assert_eq!(verified(&again), release);
    let objects = release
        .objects(&bundle)
        .map(|(_, bytes)| Some(bytes.to_vec()));
    let error = ReleaseBundle::assemble(&announcement, objects.take(2)).unwrap_err();
    assert!(
        error.to_string().ends_with("of stable is missing"),
        "{error}"
    );
}

#[test]
fn a_refused_artifact_is_named() {
    let mut broken = bundle();
    broken.fleet.signature[3] ^= 1;
    let error = refused(&broken);
    assert_eq!(
        (error.artifact.as_str(), error.name()),
        ("the fleet", "BadSignature")
    );
    let mut broken = bundle();
    broken.rollouts.get_mut("stable").unwrap().bytes.pop();
    let error = refused(&broken);
    assert_eq!(
        (error.artifact.as_str(), error.name()),
        ("the rollout manifest of stable", "Parse")
    );
    let late = verify_release(&bundle(), &trust(), at("2026-05-03T00:00:00Z"), DAY).unwrap_err();
    assert_eq!(late.name(), "Stale");
    let other = TrustFile::of(key(9).public());
    let error = verify_release(&bundle(), &other, now(), DAY).unwrap_err();
    assert_eq!(error.name(), "BadSignature");
}

#[test]
fn the_first_fault_in_order_is_told_whichever_was_found_first() {
    let mut broken = bundle();
    for signed in broken.rollouts.values_mut() {
        signed.signature[3] ^= 1;
    }
    let told = |bundle: &ReleaseBundle| {
        let error = refused(bundle);
        (error.name(), error.artifact)
    };
    let manifest_of = |channel: &str| format!("the rollout manifest of {channel}");
    assert_eq!(told(&broken), ("BadSignature", manifest_of("edge")));
    broken.rollouts.insert("aaa".into(), Signed::default());
    assert_eq!(told(&broken), ("ManifestUnexpected", manifest_of("aaa")));
    broken.rollouts.remove("stable");
    assert_eq!(told(&broken), ("ManifestMissing", manifest_of("stable")));
    broken.fleet.bytes.clear();
    assert_eq!(told(&broken), ("Parse", "the fleet".to_owned()));
}

#[test]
fn manifests_must_be_of_this_fleet_and_of_their_channel() {
    let check = |bundle: &ReleaseBundle, expected: &str| {
        assert_eq!(refused(bundle).name(), expected);
    };
    check(
        &with_manifest("stable", |m| m["channel"] = json!("edge")),
        "RolloutIdMismatch",
    );
    check(
        &with_manifest("stable", |m| m["channelRef"] = json!("ffff")),
        "RolloutIdMismatch",
    );
    check(
        &with_manifest("stable", |m| m["fleetResolvedHash"] = json!("00")),
        "FleetHashMismatch",
    );
    let mut missing = bundle();
    missing.rollouts.remove("edge");
    check(&missing, "ManifestMissing");
    for channel in ["empty", "nowhere"] {
        let mut extra = bundle();
        let copy = extra.rollouts["edge"].clone();
        extra.rollouts.insert(channel.into(), copy);
        check(&extra, "ManifestUnexpected");
    }
    let mut swapped = bundle();
    let edge = swapped.rollouts["edge"].clone();
    let stable = swapped.rollouts.insert("stable".into(), edge).unwrap();
    swapped.rollouts.insert("edge".into(), stable);
    check(&swapped, "RolloutIdMismatch");
}

#[test]
fn a_manifest_of_an_older_release_does_not_fit_a_newer_fleet() {
    let mut mixed = bundle();
    let older = build_from(&source(), &stamp("2026-05-01T11:00:00Z")).bundle;
    mixed
        .rollouts
        .insert("edge".into(), older.rollouts["edge"].clone());
    assert_eq!(refused(&mixed).name(), "FleetHashMismatch");
}

#[test]
fn an_at_sign_in_a_channel_does_not_make_another_rollout() {
    let keys = trust().release_keys(now());
    let freshness = Freshness {
        now: now(),
        window: DAY,
    };
    let bundle = with_manifest("stable", |m| {
        m["channel"] = json!("stable@4f");
        m["channelRef"] = json!("1c");
    });
    let expected: RolloutId = "stable@4f@1c".parse().unwrap();
    let error =
        verify_manifest(&bundle.rollouts["stable"], &keys, freshness, &expected).unwrap_err();
    assert!(matches!(error, ReleaseFault::RolloutId { .. }), "{error}");
}

#[test]
fn content_does_not_depend_on_the_time_of_signing() {
    let first = verified(&bundle());
    let again = verified(&build_from(&source(), &stamp("2026-05-01T11:30:00Z")).bundle);
    assert_eq!(first.content(), again.content());
    assert_ne!(first.fleet().hash(), again.fleet().hash());
    let changed = source_with("/hosts/lab-01/closureHash", json!("eee"));
    let changed = verified(&build_from(&changed, &stamp("2026-05-01T11:59:00Z")).bundle);
    assert_ne!(first.content().fleet, changed.content().fleet);
    assert_ne!(
        first.content().rollouts["edge"],
        changed.content().rollouts["edge"]
    );
    assert_eq!(
        first.content().rollouts["stable"],
        changed.content().rollouts["stable"]
    );
}
