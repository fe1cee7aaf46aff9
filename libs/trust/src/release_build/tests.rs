use nixfleet_proto::fleet::SCHEMA_VERSION;
use serde_json::{Value, json};

use super::*;
use crate::canonical_json::hashes_of;
use crate::test_release::{
    at, build_from, bundle, key, signed, source, source_with, stamp, trust, verified,
};

fn faults(source: &Value) -> Vec<String> {
    match build_release(
        source.to_string().as_bytes(),
        &stamp("2026-05-01T11:59:00Z"),
        &key(1),
    ) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_source_becomes_a_release_that_verifies_and_is_admitted() {
    let built = build_from(&source(), &stamp("2026-05-01T11:59:00Z"));
    let ids: Vec<&str> = built.rollouts.values().map(RolloutId::as_str).collect();
    assert_eq!(ids, ["edge@4f1c2d9a00", "stable@4f1c2d9a00"]);
    let release = verified(&built.bundle);
    crate::admit(&release, None, &|_| false).unwrap();
    let again = build_from(&source(), &stamp("2026-05-01T11:59:00Z"));
    assert_eq!(
        again.bundle, built.bundle,
        "the same input gives the same bytes"
    );
}

#[test]
fn waves_come_from_the_selectors_of_the_policy() {
    let built = build_from(&source(), &stamp("2026-05-01T11:59:00Z"));
    let fleet: Value = serde_json::from_slice(&built.bundle.fleet.bytes).unwrap();
    assert_eq!(
        fleet["waves"],
        json!({
            "edge": [{"hosts": ["lab-01"], "soakMinutes": 0}],
            "empty": [{"hosts": [], "soakMinutes": 0}],
            "stable": [
                {"hosts": ["web-01"], "soakMinutes": 10},
                {"hosts": ["web-02"], "soakMinutes": 30},
                {"hosts": ["db-01"], "soakMinutes": 60},
            ],
        })
    );
    // Optional values are explicit, as other producers of the format write them.
    assert_eq!(fleet["hosts"]["web-01"]["pubkey"], Value::Null);
    assert!(
        fleet["disruptionBudgets"][0]
            .as_object()
            .unwrap()
            .contains_key("maxInFlightPct")
    );
    assert_eq!(fleet["meta"]["signatureAlgorithm"], "ed25519");
}

#[test]
fn resolved_waves_of_a_source_are_kept() {
    let waves = json!({"stable": [{"hosts": ["db-01"], "soakMinutes": 1}]});
    let built = build_from(
        &source_with("/waves", waves.clone()),
        &stamp("2026-05-01T11:59:00Z"),
    );
    let fleet: Value = serde_json::from_slice(&built.bundle.fleet.bytes).unwrap();
    assert_eq!(fleet["waves"]["stable"], waves["stable"]);
    assert_eq!(fleet["waves"]["edge"][0]["hosts"], json!(["lab-01"]));
    let names: Vec<&str> = built.notices.iter().map(Notice::name).collect();
    assert_eq!(names, ["host-unstaged", "host-unstaged"]);
}

#[test]
fn a_selector_with_an_unknown_key_or_name_is_a_fault() {
    let selector =
        |selector: Value| faults(&source_with("/disruptionBudgets/0/selector", selector));
    assert_eq!(
        selector(json!({"tag": ["web"]})),
        ["disruptionBudgets[0].selector: unknown key \"tag\", did you mean \"tags\"?"]
    );
    assert_eq!(
        selector(json!({"and": [{"all": true}, {"not": {"host": ["x"]}}]})),
        ["disruptionBudgets[0].selector.and[1].not: unknown key \"host\", did you mean \"hosts\"?"]
    );
    assert_eq!(
        selector(json!({"hosts": ["gone"], "channel": "gone"})),
        [
            "disruptionBudgets[0].selector.channel: there is no channel \"gone\"",
            "disruptionBudgets[0].selector.hosts: there is no host \"gone\"",
        ]
    );
    let policy = source_with(
        "/rolloutPolicies/careful/waves/0/selector",
        json!({"tagsall": []}),
    );
    assert_eq!(
        faults(&policy),
        [
            "rolloutPolicies.careful.waves[0].selector: unknown key \"tagsall\", did you mean \"tagsAny\"?"
        ]
    );
}

#[test]
fn an_incomplete_fleet_is_refused_with_every_fault() {
    let mut broken = source();
    broken["channels"]["stable"]["rolloutPolicy"] = json!("gone");
    broken["hosts"]["lab-01"]["channel"] = json!("nowhere");
    broken["rolloutPolicies"]["careful"]["waves"][1] = json!({"selector": {"all": true, "odd": 1}});
    let faults = faults(&broken);
    let expected = [
        "rolloutPolicies.careful.waves[1].selector: unknown key \"odd\"",
        "hosts.lab-01.channel: there is no channel \"nowhere\"",
        "rolloutPolicies.careful.waves[1].soakMinutes: the soak minutes are missing",
        "channels.stable.rolloutPolicy: there is no rollout policy \"gone\"",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn every_illegal_hostname_of_a_source_and_of_a_signed_fleet_is_listed() {
    let mut broken = source();
    let host = broken["hosts"]["spare"].clone();
    for name in ["Web", "a_b", "a\u{200b}"] {
        broken["hosts"][name] = host.clone();
    }
    let faults = faults(&broken);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(
        faults[0].contains("\"Web\" is not a hostname: its letters must be lower case"),
        "{faults:?}"
    );
    let mut bundle = bundle();
    let mut fleet: Value = serde_json::from_slice(&bundle.fleet.bytes).unwrap();
    for name in ["Web", "a_b"] {
        fleet["hosts"][name] = fleet["hosts"]["spare"].clone();
    }
    bundle.fleet = signed(&fleet);
    let trust = trust();
    let (now, day) = (crate::test_release::now(), crate::test_release::DAY);
    let error = crate::verify_release(&bundle, &trust, now, day).unwrap_err();
    assert_eq!(error.name(), "Parse");
    let crate::ReleaseFault::Verify(fault) = &error.fault else {
        panic!("{error}");
    };
    let told = fault.to_string();
    assert!(
        told.contains("\"Web\"") && told.contains("\"a_b\""),
        "{told}"
    );
}

#[test]
fn a_release_needs_a_commit() {
    let mut no_commit = stamp("2026-05-01T11:59:00Z");
    no_commit.commit = None;
    let build = |source: &Value| build_release(source.to_string().as_bytes(), &no_commit, &key(1));
    let error = build(&source()).unwrap_err();
    assert!(error.to_string().contains("a commit is needed"), "{error}");
    let built = build(&source_with("/meta", json!({"ciCommit": "abc1"}))).unwrap();
    assert_eq!(built.rollouts["edge"].as_str(), "edge@abc1");
}

#[test]
fn broken_sources_say_what_is_wrong() {
    let check = |text: &str, expected: &str| {
        let error =
            build_release(text.as_bytes(), &stamp("2026-05-01T11:59:00Z"), &key(1)).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    };
    check("", "not JSON");
    check("[]", "cannot be read");
    check("{\"hosts\":{}}", "missing field `channels`");
    check("{\"hosts\":{},\"hosts\":{}}", "duplicate key \"hosts\"");
    check("{\"hosts\":{},\"channels\":{}}", "nothing to roll out");
    check(
        &source_with("/rolloutPolicies/fast/onHealthFailure", json!("halt-only")).to_string(),
        "halt-only",
    );
}

#[test]
fn an_expired_pin_is_left_out() {
    let pin = |expires_at: &str| json!({"commit": "aa", "reason": "test", "expiresAt": expires_at});
    let built = |expires_at: &str| {
        let built = build_from(
            &source_with("/hosts/web-01/pin", pin(expires_at)),
            &stamp("2026-05-01T11:59:00Z"),
        );
        let fleet: Value = serde_json::from_slice(&built.bundle.fleet.bytes).unwrap();
        (
            fleet["hosts"]["web-01"].get("pin").is_some(),
            built.notices.len(),
        )
    };
    assert_eq!(built("2026-05-01T11:59:00Z"), (false, 1));
    assert_eq!(built("2026-05-01T11:59:01Z"), (true, 0));
    assert_eq!(
        stamp("2026-05-01T11:59:00Z").signed_at,
        at("2026-05-01T11:59:00Z")
    );
}

#[test]
fn signed_artifacts_and_key_files_keep_their_bytes() {
    let release = bundle();
    let meta = json!({"schemaVersion": 1, "signedAt": "2026-05-01T12:00:00Z", "ciCommit": null});
    let revocations = signed(&json!({"schemaVersion": 1, "meta": meta, "revocations": [
        {"hostname": "h", "notBefore": "2026-05-01T12:00:00Z", "reason": "lost", "revokedBy": "ops"}]}));
    let nonces = signed(
        &json!({"schemaVersion": 1, "meta": meta, "bootstrapNonces": [
        {"nonce": "n", "hostname": "h", "expiresAt": "2026-05-01T12:00:00Z"}]}),
    );
    let untidy =
        r#"{"b": [1e2, 0.1, -0, 1E-7, "\u00e9\u0001\/"], "a": {"\ud83d\ude00": null, "z": true}}"#;
    let mut samples = vec![
        (
            "canonical".to_owned(),
            crate::canonicalize(untidy.as_bytes()).unwrap().into_owned(),
        ),
        (
            "content-hash".to_owned(),
            hashes_of(&release.fleet.bytes).content.as_str().into(),
        ),
        (
            "fleet-signature".to_owned(),
            release.fleet.signature.clone(),
        ),
        ("fleet".to_owned(), release.fleet.bytes),
        ("revocations".to_owned(), revocations.bytes),
        ("bootstrap-nonces".to_owned(), nonces.bytes),
        (
            "trust-file".to_owned(),
            serde_json::to_vec(&trust()).unwrap(),
        ),
        (
            "key-file".to_owned(),
            serde_json::to_vec(&key(1).to_file()).unwrap(),
        ),
    ];
    let manifests = release.rollouts.into_iter();
    samples.extend(
        manifests.map(|(channel, manifest)| (format!("manifest-{channel}"), manifest.bytes)),
    );
    nixfleet_encodings::check("artifact", SCHEMA_VERSION, samples);
}

#[test]
fn an_unknown_key_is_a_fault_with_the_nearest_known_one() {
    for (pointer, key, wanted) in [
        (
            "",
            "channel_edges",
            "fleet: unknown key \"channel_edges\", did you mean \"channelEdges\"?",
        ),
        (
            "/hosts/web-01",
            "closure",
            "hosts.web-01: unknown key \"closure\"",
        ),
        (
            "/channels/stable",
            "rolloutpolicy",
            "channels.stable: unknown key \"rolloutpolicy\", did you mean \"rolloutPolicy\"?",
        ),
        (
            "/disruptionBudgets/0",
            "maxInflight",
            "disruptionBudgets[0]: unknown key \"maxInflight\", did you mean \"maxInFlight\"?",
        ),
        (
            "/disruptionBudgets/0/selector",
            "tag",
            "disruptionBudgets[0].selector: unknown key \"tag\", did you mean \"tags\"?",
        ),
        ("/edges/0", "zzz", "edges[0]: unknown key \"zzz\""),
    ] {
        let mut source = source();
        let object = source
            .pointer_mut(pointer)
            .unwrap()
            .as_object_mut()
            .unwrap();
        object.insert(key.to_owned(), json!(1));
        let found = faults(&source);
        assert!(
            found.len() == 1 && found[0].starts_with(wanted),
            "{key}: {found:?}"
        );
    }
}

#[test]
fn keys_of_other_tools_are_signed_as_they_are() {
    let mut source = source();
    let compliance = json!({"mode": "enforce", "frameworks": ["nis2"], "n": 1.50});
    source["channels"]["stable"]["compliance"] = compliance.clone();
    let built = build_from(&source, &stamp("2026-05-01T11:59:00Z"));
    let fleet: Value = serde_json::from_slice(&built.bundle.fleet.bytes).unwrap();
    assert_eq!(fleet["channels"]["stable"]["compliance"], compliance);
    assert_eq!(fleet["channels"]["edge"].get("compliance"), None);
    verified(&built.bundle);

    source["channels"]["stable"]["compliance"]["frameworks"] = json!(["a\u{202e}b"]);
    let found = faults(&source);
    assert!(
        found[0].starts_with("channels.stable.compliance"),
        "{found:?}"
    );
}

#[test]
fn an_edge_between_channels_is_a_fault_here_and_a_notice_at_admission() {
    let edges = json!([{"gated": "web-01", "gates": "lab-01", "reason": null}]);
    let source = source_with("/edges", edges);
    let found = faults(&source);
    assert!(
        found[0].starts_with("edges[0]: web-01 would wait for lab-01 of another channel"),
        "{found:?}"
    );
    let mut findings = Findings::default();
    let release = verified(&bundle());
    let mut fleet = release.fleet().payload().clone();
    fleet.edges = serde_json::from_value(source["edges"].clone()).unwrap();
    check_fleet(&fleet, &mut findings);
    let notices = findings.into_result().unwrap();
    assert!(
        notices
            .iter()
            .any(|notice| notice.name() == "edge-across-channels")
    );
}

#[test]
fn a_selector_that_selects_nothing_is_a_notice() {
    let selector = json!({"tags": ["nobody"]});
    let source = source_with("/disruptionBudgets/0/selector", selector);
    let built = build_from(&source, &stamp("2026-05-01T11:59:00Z"));
    let texts: Vec<String> = built.notices.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["disruptionBudgets[0].selector: selects no host"]);
}
