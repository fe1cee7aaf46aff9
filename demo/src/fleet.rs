//! The fleet of the demo and its two releases.

use nixfleet_proto::fleet::{
    Channel, ChannelEdge, DisruptionBudget, Fleet, FleetHost, FleetHosts, HostEdge, Meta,
    PolicyWave, RolloutPolicy, SCHEMA_VERSION, Selector,
};
use nixfleet_proto::{ChannelName, ClosureHash, Hostname, Minutes, OnHealthFailure};
use nixfleet_swarm::profile::Profile;
use serde_json::{Value, json};

/// The channels in the order of their edges.
pub const CHANNELS: [&str; 3] = ["edge", "stable", "critical"];

/// Seconds a host stays under watch after activation.
const SOAK_SECONDS: u64 = 3;

/// Part of the hosts with the bad closure whose probe fails, in percent.
const BAD_PERCENT: f64 = 60.0;

/// Share of each channel, in percent; `critical` takes the rest.
const EDGE_PERCENT: usize = 15;
const STABLE_PERCENT: usize = 60;

/// Every canary is one of this many hosts of its channel.
const CANARY_EACH: usize = 5;

/// One of the two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The closure of `edge` hosts that are no canaries fails its probe on some of them.
    Bad,
    /// Works everywhere.
    Fixed,
}

impl Release {
    /// The commit it is built from.
    pub fn commit(self) -> &'static str {
        match self {
            Self::Bad => "bad0c0de01",
            Self::Fixed => "900dc0de02",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Bad => "r1",
            Self::Fixed => "r2",
        }
    }

    /// Closures are shared per channel and role, as machines built from one profile share theirs.
    fn closure(self, channel: &str, role: Role) -> ClosureHash {
        let health = if self == Self::Bad && channel == CHANNELS[0] && role == Role::Worker {
            "bad"
        } else {
            "good"
        };
        let (label, role) = (self.label(), role.tag());
        ClosureHash::from(format!("{label}-{health}-nixos-system-{channel}-{role}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Canary,
    Worker,
}

impl Role {
    fn of(index: usize) -> Self {
        if index.is_multiple_of(CANARY_EACH) {
            Self::Canary
        } else {
            Self::Worker
        }
    }

    fn tag(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Worker => "worker",
        }
    }
}

/// The hosts of the fleet, by channel.
#[derive(Debug, Clone)]
pub struct Hosts {
    by_channel: [(&'static str, Vec<(Hostname, Role)>); 3],
}

impl Hosts {
    /// Names `count` hosts.
    pub fn new(count: usize) -> Self {
        let edge = (count * EDGE_PERCENT / 100).max(6);
        let stable = count * STABLE_PERCENT / 100;
        let named = |channel: &'static str, count: usize| {
            let hosts = (0..count)
                .map(|index| {
                    let name = Hostname::from(format!("{channel}-{index:04}"));
                    (name, Role::of(index))
                })
                .collect();
            (channel, hosts)
        };
        Self {
            by_channel: [
                named(CHANNELS[0], edge),
                named(CHANNELS[1], stable),
                named(CHANNELS[2], count - edge - stable),
            ],
        }
    }

    /// Every name.
    pub fn names(&self) -> Vec<String> {
        self.all()
            .map(|(_, hostname, _)| hostname.to_string())
            .collect()
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &Hostname, Role)> {
        self.by_channel.iter().flat_map(|(channel, hosts)| {
            hosts
                .iter()
                .map(move |(hostname, role)| (*channel, hostname, *role))
        })
    }

    /// The source of a release, as `nixfleet release` reads it.
    ///
    /// # Errors
    /// Never, in practice: the fleet is data.
    pub fn source(&self, release: Release) -> serde_json::Result<Value> {
        let hosts: FleetHosts = self
            .all()
            .map(|(channel, hostname, role)| {
                let host = FleetHost {
                    system: "x86_64-linux".to_owned(),
                    tags: vec![role.tag().to_owned()],
                    channel: ChannelName::from(channel),
                    closure_hash: Some(release.closure(channel, role)),
                    pubkey: None,
                    pin: None,
                };
                (hostname.clone(), host)
            })
            .collect();
        let fleet = Fleet {
            schema_version: SCHEMA_VERSION,
            hosts,
            channels: CHANNELS.map(channel).into(),
            rollout_policies: [("careful".to_owned(), policy())].into(),
            waves: std::collections::BTreeMap::default(),
            edges: self.host_edge(),
            channel_edges: vec![
                channel_edge(CHANNELS[0], CHANNELS[1]),
                channel_edge(CHANNELS[1], CHANNELS[2]),
            ],
            disruption_budgets: vec![budget()],
            meta: Meta {
                schema_version: SCHEMA_VERSION,
                signed_at: None,
                ci_commit: Some(release.commit().to_owned()),
                signature_algorithm: None,
            },
        };
        let mut source = serde_json::to_value(fleet)?;
        // Left out so that the release tool resolves the waves from the selectors.
        if let Some(source) = source.as_object_mut() {
            source.remove("waves");
        }
        Ok(source)
    }

    /// The last worker of `stable` waits for the first one.
    fn host_edge(&self) -> Vec<HostEdge> {
        let workers: Vec<&Hostname> = self.by_channel[1]
            .1
            .iter()
            .filter(|(_, role)| *role == Role::Worker)
            .map(|(hostname, _)| hostname)
            .collect();
        match (workers.first(), workers.last()) {
            (Some(first), Some(last)) if first != last => vec![HostEdge {
                gated: (*last).clone(),
                gates: (*first).clone(),
                reason: Some("the database before its reader".to_owned()),
            }],
            _ => Vec::new(),
        }
    }
}

fn channel(name: &str) -> (ChannelName, Channel) {
    let channel = Channel {
        rollout_policy: "careful".to_owned(),
        reconcile_interval_minutes: 30,
        freshness_window: 1_440,
        signing_interval_minutes: 60,
    };
    (ChannelName::from(name), channel)
}

fn policy() -> RolloutPolicy {
    let wave = |selector| PolicyWave {
        selector,
        soak_minutes: Some(Minutes::from_seconds(SOAK_SECONDS)),
    };
    let canaries = Selector {
        tags: vec![Role::Canary.tag().to_owned()],
        ..Selector::default()
    };
    let rest = Selector {
        all: true,
        ..Selector::default()
    };
    RolloutPolicy {
        strategy: "waves".to_owned(),
        waves: vec![wave(canaries), wave(rest)],
        health_gate: serde_json::Map::default(),
        on_health_failure: OnHealthFailure::RollbackAndHalt,
    }
}

fn channel_edge(gates: &str, gated: &str) -> ChannelEdge {
    ChannelEdge {
        gates: ChannelName::from(gates),
        gated: ChannelName::from(gated),
        reason: Some(format!("{gated} waits until {gates} is through")),
    }
}

/// At most a quarter of all workers at once.
fn budget() -> DisruptionBudget {
    DisruptionBudget {
        selector: Selector {
            tags: vec![Role::Worker.tag().to_owned()],
            ..Selector::default()
        },
        max_in_flight: None,
        max_in_flight_pct: Some(25),
    }
}

/// What happens to the hosts: some are slow, crash, need a reboot or lose their network.
pub fn profile() -> Value {
    json!({
        "activationMs": { "min": 300, "max": 1500 },
        "rollbackMs": { "min": 300, "max": 800 },
        "probes": [
            { "probeName": "http", "kind": "http", "mode": "enforce" },
            { "probeName": "disk", "kind": "exec", "mode": "observe" }
        ],
        "failures": [
            { "closure": "*-bad-*", "share": BAD_PERCENT / 100.0,
              "fails": { "kind": "probe", "probeName": "http" } }
        ],
        "deferral": { "closure": "*-good-*", "share": 0.02,
                      "rebootAfterMs": { "min": 1000, "max": 3000 } },
        "crash": { "closure": "*-good-*", "share": 0.03,
                   "points": ["before-switch", "after-switch"],
                   "restartAfterMs": { "min": 500, "max": 1500 } },
        "offline": { "closure": "*", "share": 0.03,
                     "startsAfterMs": { "min": 0, "max": 2000 },
                     "durationMs": { "min": 1000, "max": 3000 } }
    })
}

/// The profile as the swarm reads it; refuses what the swarm would refuse.
///
/// # Errors
/// When the profile has faults.
pub fn checked_profile() -> anyhow::Result<Value> {
    let profile = profile();
    Profile::parse(profile.to_string().as_bytes())?;
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use nixfleet_harness::release::Signer;

    use super::*;

    #[test]
    fn both_releases_are_complete_at_every_size() {
        let signer = Signer::development().unwrap();
        for count in [20, 21, 60, 300] {
            let hosts = Hosts::new(count);
            assert_eq!(hosts.names().len(), count);
            for release in [Release::Bad, Release::Fixed] {
                let source = hosts.source(release).unwrap();
                let built = signer
                    .release(&source, release.commit(), chrono::Utc::now())
                    .unwrap();
                assert_eq!(built.rollouts.len(), CHANNELS.len());
                assert!(built.notices.is_empty(), "{:?}", built.notices);
            }
        }
    }

    #[test]
    fn only_the_first_release_of_edge_is_bad() {
        assert!(
            Release::Bad
                .closure("edge", Role::Worker)
                .as_str()
                .contains("-bad-")
        );
        for (release, channel, role) in [
            (Release::Bad, "edge", Role::Canary),
            (Release::Bad, "stable", Role::Worker),
            (Release::Fixed, "edge", Role::Worker),
        ] {
            assert!(release.closure(channel, role).as_str().contains("-good-"));
        }
    }

    #[test]
    fn the_swarm_takes_the_profile() {
        checked_profile().unwrap();
    }
}
