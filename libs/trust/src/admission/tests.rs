use nixfleet_proto::fleet::{ChannelEdge, Fleet, HostEdge, PolicyWave, Selector};
use nixfleet_proto::{ClosureHash, Minutes, RolloutId};
use serde_json::{Value, json};

use super::*;
use crate::release_bundle::ReleaseBundle;
use crate::test_release::{at, build_from, bundle, signed, source, source_with, stamp, verified};

fn never(_: &RolloutId) -> bool {
    false
}

fn names(result: Result<Admission, AdmissionError>) -> Vec<&'static str> {
    result.unwrap_err().faults.iter().map(Fault::name).collect()
}

fn fleet() -> Fleet {
    verified(&bundle()).fleet().payload().clone()
}

/// Names of the faults of the complete fleet after a change.
fn faults_of(change: impl FnOnce(&mut Fleet)) -> Vec<&'static str> {
    let mut fleet = fleet();
    change(&mut fleet);
    let mut findings = Findings::default();
    check_fleet(&fleet, &mut findings);
    match findings.into_result() {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(Fault::name).collect(),
    }
}

#[test]
fn a_complete_release_is_admitted() {
    let admission = admit(&verified(&bundle()), None, &never).unwrap();
    assert_eq!(
        admission,
        Admission {
            notices: vec![],
            renewed: false
        }
    );
}

#[test]
fn the_same_content_signed_again_renews() {
    let accepted = verified(&bundle()).accepted();
    let again = build_from(&source(), &stamp("2026-05-01T11:59:30Z")).bundle;
    assert!(
        admit(&verified(&again), Some(&accepted), &never)
            .unwrap()
            .renewed
    );
    assert!(
        admit(&verified(&bundle()), Some(&accepted), &never)
            .unwrap()
            .renewed
    );
}

#[test]
fn going_back_in_time_is_refused() {
    let accepted = verified(&bundle()).accepted();
    let older = build_from(&source(), &stamp("2026-05-01T11:58:59Z")).bundle;
    assert_eq!(
        names(admit(&verified(&older), Some(&accepted), &never)),
        ["older"]
    );
}

#[test]
fn the_same_ref_with_other_content_is_refused() {
    let accepted = verified(&bundle()).accepted();
    let changed = source_with("/hosts/lab-01/closureHash", json!("eee"));
    let same_ref = build_from(&changed, &stamp("2026-05-01T11:59:30Z")).bundle;
    let error = admit(&verified(&same_ref), Some(&accepted), &never).unwrap_err();
    assert_eq!(error.faults.len(), 2, "manifest and fleet: {error}");
    assert!(
        error
            .faults
            .iter()
            .all(|fault| fault.name() == "ref-reused")
    );

    let mut new_commit = stamp("2026-05-01T11:59:30Z");
    new_commit.commit = Some("5a5a".into());
    let other_ref = build_from(&changed, &new_commit).bundle;
    assert!(
        !admit(&verified(&other_ref), Some(&accepted), &never)
            .unwrap()
            .renewed
    );
}

#[test]
fn a_superseded_ref_is_refused() {
    let superseded = |id: &RolloutId| id.as_str() == "stable@4f1c2d9a00";
    let error = admit(&verified(&bundle()), None, &superseded).unwrap_err();
    assert!(
        error.to_string().contains("publish a new commit"),
        "{error}"
    );
    assert_eq!(names(Err(error)), ["superseded"]);
}

#[test]
fn references_must_exist() {
    assert_eq!(
        faults_of(|fleet| {
            fleet.hosts.get_mut("lab-01").unwrap().channel = "gone".into();
            fleet.channels.get_mut("stable").unwrap().rollout_policy = "gone".into();
            fleet.waves.insert("gone".into(), vec![]);
            fleet.waves.get_mut("stable").unwrap()[0]
                .hosts
                .push("gone".into());
            fleet.edges.push(HostEdge {
                gated: "gone".into(),
                gates: "web-01".into(),
                reason: None,
            });
            fleet.channel_edges.push(ChannelEdge {
                gated: "gone".into(),
                gates: "also".into(),
                reason: None,
            });
        }),
        [
            "unknown-channel",
            "unknown-policy",
            "unknown-channel",
            "unknown-host",
            "unknown-host",
            "unknown-channel",
            "unknown-channel",
        ]
    );
}

#[test]
fn every_wave_needs_a_soak() {
    let careful = |fleet: &mut Fleet, change: &dyn Fn(&mut Vec<PolicyWave>)| {
        change(&mut fleet.rollout_policies.get_mut("careful").unwrap().waves);
    };
    let set = |soak| move |waves: &mut Vec<PolicyWave>| waves[1].soak_minutes = soak;
    let year = Minutes::from_minutes(SOAK_MINUTES_MAX);
    let more = Minutes::from_seconds(year.seconds() + 1);
    assert_eq!(
        faults_of(|fleet| careful(fleet, &set(None))),
        ["soak-missing"]
    );
    assert_eq!(
        faults_of(|fleet| careful(fleet, &set(Some(more)))),
        ["soak-too-long"]
    );
    assert!(faults_of(|fleet| careful(fleet, &set(Some(year)))).is_empty());
    // Three resolved waves, one in the policy.
    assert_eq!(
        faults_of(|fleet| careful(fleet, &|waves| waves.truncate(1))),
        ["soak-missing", "soak-missing"]
    );
    // Hosts, no waves anywhere.
    assert_eq!(
        faults_of(|fleet| {
            careful(fleet, &Vec::clear);
            fleet.waves.remove("stable");
        }),
        ["soak-missing"]
    );
    assert!(
        faults_of(|fleet| {
            fleet.waves.remove("stable");
        })
        .is_empty()
    );
}

#[test]
fn edges_must_not_form_cycles() {
    let edge = |gated: &str, gates: &str| HostEdge {
        gated: gated.parse().unwrap(),
        gates: gates.parse().unwrap(),
        reason: None,
    };
    assert_eq!(
        faults_of(|fleet| fleet.edges.push(edge("db-01", "web-01"))),
        ["cycle"]
    );
    assert_eq!(
        faults_of(|fleet| fleet.edges.push(edge("lab-01", "lab-01"))),
        ["cycle"]
    );
    assert_eq!(
        faults_of(|fleet| fleet.channel_edges.push(ChannelEdge {
            gated: "edge".into(),
            gates: "stable".into(),
            reason: None,
        })),
        ["cycle"]
    );
    let fault = Fault::Cycle {
        at: "edges".into(),
        path: vec!["a".into(), "b".into()],
    };
    assert_eq!(
        fault.to_string(),
        "edges: a cycle without a first one: a waits for b"
    );
}

#[test]
fn a_ref_is_needed_and_must_be_legal() {
    let with_commit = |commit: Option<&str>| {
        let commit = commit.map(str::to_owned);
        faults_of(|fleet| fleet.meta.ci_commit = commit)
    };
    assert_eq!(
        with_commit(None),
        ["ref-missing", "ref-missing"],
        "one per channel with hosts"
    );
    assert_eq!(with_commit(Some("")), ["ref-missing", "ref-missing"]);
    for illegal in ["main", "4F", "a b", "../4f", "4f@4f"] {
        assert_eq!(with_commit(Some(illegal)), ["ref-illegal"], "{illegal}");
    }
    assert!(with_commit(Some("0f")).is_empty());
}

#[test]
fn a_fleet_without_closures_has_nothing_to_roll_out() {
    let faults = faults_of(|fleet| {
        fleet
            .hosts
            .values_mut()
            .for_each(|host| host.closure_hash = None)
    });
    assert_eq!(faults, ["no-hosts"]);
    assert_eq!(
        faults_of(|fleet| {
            fleet.hosts.clear();
            fleet.waves.clear();
            fleet.edges.clear();
        }),
        ["no-hosts"]
    );
}

#[test]
fn a_host_named_like_the_certificate_of_another_one_is_refused() {
    let add = |names: &'static [&'static str]| {
        faults_of(|fleet| {
            let host = fleet.hosts["spare"].clone();
            for name in names {
                fleet.hosts.insert((*name).into(), host.clone());
            }
        })
    };
    assert_eq!(add(&["agent-a.prod", "a"]), ["name-illegal"]);
    assert_eq!(add(&["agent-a.prod"]), ["name-illegal"]);
    assert!(add(&["agent-a", "a", "a.prod", "my-agent-a.prod"]).is_empty());
}

#[test]
fn texts_that_people_see_have_no_hidden_characters() {
    type Change = fn(&mut Fleet, &str);
    let changes: [Change; 11] = [
        |fleet, text| fleet.hosts.get_mut("web-01").unwrap().system = text.to_owned(),
        |fleet, text| {
            fleet
                .hosts
                .get_mut("web-01")
                .unwrap()
                .tags
                .push(text.to_owned())
        },
        |fleet, text| fleet.hosts.get_mut("web-01").unwrap().pubkey = Some(text.to_owned()),
        |fleet, text| {
            let pin = serde_json::from_value(json!({ "commit": "4f", "reason": text }));
            fleet.hosts.get_mut("web-01").unwrap().pin = pin.unwrap();
        },
        |fleet, text| fleet.edges[0].reason = Some(text.to_owned()),
        |fleet, text| fleet.channel_edges[0].reason = Some(text.to_owned()),
        |fleet, text| {
            fleet.disruption_budgets[0]
                .selector
                .tags_any
                .push(text.to_owned())
        },
        |fleet, text| fleet.rollout_policies.get_mut("careful").unwrap().strategy = text.to_owned(),
        |fleet, text| {
            let gate = &mut fleet
                .rollout_policies
                .get_mut("careful")
                .unwrap()
                .health_gate;
            gate.insert("note".to_owned(), json!([{ "text": text }]));
        },
        |fleet, text| {
            let policy = fleet.rollout_policies["fast"].clone();
            fleet.rollout_policies.insert(text.to_owned(), policy);
        },
        |fleet, text| fleet.meta.signature_algorithm = Some(text.to_owned()),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        for hidden in ["a\u{202e}b", "a\u{200b}", "\u{feff}a", "a\nb", "a\0"] {
            assert_eq!(
                faults_of(|fleet| change(fleet, hidden)),
                ["name-illegal"],
                "{index}"
            );
        }
        assert!(
            faults_of(|fleet| change(fleet, "größer, № 1")).is_empty(),
            "{index}"
        );
        let long = "a".repeat(8 * 1024 + 1);
        assert_eq!(
            faults_of(|fleet| change(fleet, &long)),
            ["name-illegal"],
            "{index}"
        );
    }
    // Every one of them is listed.
    let all = faults_of(|fleet| {
        changes.into_iter().enumerate().for_each(|(index, change)| {
            change(fleet, &format!("{index}\u{200b}"));
        });
    });
    assert_eq!(all.len(), changes.len());
}

#[test]
fn names_and_numbers_are_bounded() {
    for name in ["Stable", "a.b", "", "a@b"] {
        let channel = fleet().channels["edge"].clone();
        assert_eq!(
            faults_of(|fleet| {
                fleet.channels.insert(name.into(), channel);
            }),
            ["name-illegal"]
        );
    }
    for closure in ["", "a/b", "a b", "a\u{200b}", &"a".repeat(1025)] {
        let change = |fleet: &mut Fleet| {
            fleet.hosts.get_mut("web-01").unwrap().closure_hash = Some(closure.into());
        };
        assert_eq!(faults_of(change), ["name-illegal"], "{closure:?}");
    }
    let longest = ClosureHash::from("a".repeat(1024));
    let change = |fleet: &mut Fleet| {
        fleet.hosts.get_mut("web-01").unwrap().closure_hash = Some(longest);
    };
    assert!(faults_of(change).is_empty());
    assert_eq!(
        faults_of(|fleet| fleet.channels.get_mut("edge").unwrap().freshness_window = u64::MAX),
        ["freshness-too-long"]
    );
    let wave = PolicyWave {
        selector: Selector::default(),
        soak_minutes: Some(Minutes::ZERO),
    };
    assert_eq!(
        faults_of(
            |fleet| fleet.rollout_policies.get_mut("careful").unwrap().waves =
                vec![wave; WAVES_MAX + 1]
        ),
        ["too-many-waves"]
    );
    assert_eq!(
        faults_of(|fleet| fleet.meta.schema_version = 2),
        ["schema-version"]
    );
}

#[test]
fn odd_waves_are_noticed_and_not_refused() {
    let waves = json!({"stable": [
        {"hosts": ["lab-01", "spare", "web-01"], "soakMinutes": 0},
        {"hosts": ["web-02"], "soakMinutes": 0},
    ]});
    let release = verified(
        &build_from(
            &source_with("/waves", waves),
            &stamp("2026-05-01T11:59:00Z"),
        )
        .bundle,
    );
    let notices = admit(&release, None, &never).unwrap().notices;
    let names: Vec<&str> = notices.iter().map(Notice::name).collect();
    assert_eq!(
        names,
        [
            "wave-host-elsewhere",
            "wave-host-without-closure",
            "host-unstaged"
        ]
    );
}

/// The bundle with the manifest of `stable` changed and signed again.
fn with_manifest(change: impl FnOnce(&mut Value)) -> ReleaseBundle {
    let mut bundle = bundle();
    let entry = bundle.rollouts.get_mut("stable").unwrap();
    let mut document: Value = serde_json::from_slice(&entry.bytes).unwrap();
    change(&mut document);
    *entry = signed(&document);
    bundle
}

#[test]
fn a_manifest_must_be_the_projection_of_its_fleet() {
    let check = |change: &dyn Fn(&mut Value), expected: &[&str]| {
        let bundle = with_manifest(|document| change(document));
        assert_eq!(names(admit(&verified(&bundle), None, &never)), expected);
    };
    check(
        &|m| m["hostSet"][0]["targetClosure"] = json!("zzz"),
        &["host-set-differs"],
    );
    check(
        &|m| m["hostSet"][0]["waveIndex"] = json!(1),
        &["host-set-differs"],
    );
    check(
        &|m| m["hostSet"].as_array_mut().unwrap().reverse(),
        &["host-set-differs"],
    );
    check(&|m| m["hostSet"] = json!([]), &["host-set-differs"]);
    check(
        &|m| m["disruptionBudgets"][0]["hosts"] = json!(["gone"]),
        &["unknown-host"],
    );
    check(
        &|m| m["meta"]["schemaVersion"] = json!(3),
        &["schema-version"],
    );
    let fewer = with_manifest(|m| m["disruptionBudgets"] = json!([]));
    let notices = admit(&verified(&fewer), None, &never).unwrap().notices;
    assert_eq!(notices[0].name(), "budgets-differ");
}

#[test]
fn all_faults_are_listed_up_to_the_bound() {
    let mut findings = Findings::default();
    let mut fleet = fleet();
    for index in 0..FAULTS_MAX + 7 {
        fleet.waves.get_mut("stable").unwrap()[0]
            .hosts
            .push(format!("gone-{index}").parse().unwrap());
    }
    check_fleet(&fleet, &mut findings);
    let error = findings.into_result().unwrap_err();
    assert_eq!((error.faults.len(), error.omitted), (FAULTS_MAX, 7));
    assert!(error.to_string().ends_with("and 7 more"));
}

#[test]
fn faults_have_a_code_and_a_message_for_machines() {
    let fault = Fault::Older {
        signed_at: at("2026-05-01T00:00:00Z"),
        accepted: at("2026-05-02T00:00:00Z"),
    };
    assert_eq!(
        serde_json::to_value(&fault).unwrap(),
        json!({"code": "older", "message": "signed at 2026-05-01 00:00:00 UTC, the accepted release at 2026-05-02 00:00:00 UTC"})
    );
}
