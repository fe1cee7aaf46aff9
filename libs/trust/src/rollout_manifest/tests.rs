use serde_json::json;

use super::*;
use crate::test_release::{bundle, verified};
use nixfleet_proto::Hostname;

fn fleet() -> Fleet {
    verified(&bundle()).fleet().payload().clone()
}

fn hash(text: &str) -> ManifestHash {
    ManifestHash::from(text)
}

#[test]
fn a_channel_projects_its_hosts_with_closures() {
    let manifest = project(&fleet(), &hash("f"), &"stable".into())
        .unwrap()
        .unwrap();
    let hosts: Vec<_> = manifest
        .host_set
        .iter()
        .map(|host| {
            (
                host.hostname.as_str(),
                host.wave_index,
                host.target_closure.as_str(),
            )
        })
        .collect();
    assert_eq!(
        hosts,
        [
            ("db-01", 2, "ccc-nixos-db-01"),
            ("web-01", 0, "aaa-nixos-web-01"),
            ("web-02", 1, "bbb-nixos-web-02"),
        ]
    );
    assert_eq!(manifest.display_name, "stable@4f1c2d9a");
    assert_eq!(manifest.rollout_id().as_str(), "stable@4f1c2d9a00");
    assert_eq!(manifest.fleet_resolved_hash, hash("f"));
    assert_eq!(
        manifest.health_gate["systemdFailedUnits"],
        json!({"max": 0})
    );
    assert_eq!(manifest.meta, fleet().meta);
    // Budgets are resolved over the whole fleet: lab-01 is on another channel.
    let budget = &manifest.disruption_budgets[0];
    let names: Vec<&str> = budget.hosts.iter().map(Hostname::as_str).collect();
    assert_eq!(names, ["lab-01", "web-01", "web-02"]);
    assert_eq!(
        (budget.max_in_flight, budget.max_in_flight_pct),
        (Some(1), None)
    );
}

#[test]
fn a_host_is_in_its_first_wave_or_in_wave_0() {
    let mut fleet = fleet();
    let waves = fleet.waves.get_mut("stable").unwrap();
    waves[2].hosts.push("web-01".into());
    waves[2].hosts.retain(|name| name.as_str() != "db-01");
    let set = host_sets(&fleet).remove("stable").unwrap();
    let waves: Vec<u32> = set.iter().map(|host| host.wave_index).collect();
    assert_eq!(waves, [0, 0, 1]);
}

#[test]
fn what_cannot_be_projected_says_why() {
    let mut fleet = fleet();
    assert_eq!(project(&fleet, &hash("f"), &"empty".into()), Ok(None));
    assert_eq!(
        project(&fleet, &hash("f"), &"none".into()),
        Err(ProjectError::UnknownChannel("none".into()))
    );
    fleet.meta.ci_commit = None;
    let manifest = project(&fleet, &hash("f"), &"edge".into())
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            manifest.display_name.as_str(),
            manifest.channel_ref.as_str()
        ),
        ("edge@unknown", "")
    );
    fleet.meta.signed_at = None;
    assert_eq!(
        project(&fleet, &hash("f"), &"edge".into()),
        Err(ProjectError::NotSigned)
    );
    fleet.rollout_policies.clear();
    assert!(matches!(
        project(&fleet, &hash("f"), &"edge".into()),
        Err(ProjectError::UnknownPolicy { .. })
    ));
}

#[test]
fn all_channels_project_as_each_does() {
    let fleet = fleet();
    let all = project_all(&fleet, &hash("f")).unwrap();
    assert_eq!(
        all.keys().map(ChannelName::as_str).collect::<Vec<_>>(),
        ["edge", "stable"]
    );
    for (channel, manifest) in all {
        assert_eq!(
            project(&fleet, &hash("f"), &channel).unwrap(),
            Some(manifest)
        );
    }
}
