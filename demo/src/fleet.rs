//! The fleet of the demo and its two releases.

use nixfleet_harness::canary_fleet::{CanaryFleet, CanaryRelease, Role};
use nixfleet_proto::fleet::ChannelEdge;
use nixfleet_proto::{ChannelName, ClosureHash, Minutes};
use nixfleet_swarm::profile::Profile;
use serde_json::{Value, json};

/// The channels in the order of their edges.
pub const CHANNELS: [&str; 3] = ["edge", "stable", "critical"];

/// Soak of each wave.
const SOAK_SECONDS: u64 = 3;

/// Share of the hosts with the bad closure whose probe fails, in percent.
const BAD_PERCENT: f64 = 60.0;

/// Share of the hosts in each channel, in percent; `critical` has the others.
const EDGE_PERCENT: usize = 15;
const STABLE_PERCENT: usize = 60;

/// Hosts of a channel for each canary.
const CANARY_INTERVAL: usize = 5;

/// Largest share of all workers in flight.
const WORKERS_IN_FLIGHT_PERCENT: u64 = 25;

/// The two releases of the demo.
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

/// Hosts of the three channels.
pub fn hosts(count: usize) -> CanaryFleet {
    let edge = (count * EDGE_PERCENT / 100).max(6);
    let stable = count * STABLE_PERCENT / 100;
    let counts = [edge, stable, count - edge - stable];
    CanaryFleet::new(
        CHANNELS.map(ChannelName::from).into_iter().zip(counts),
        CANARY_INTERVAL,
    )
}

/// The source of a release, as `nixfleet release` reads it.
pub fn source(hosts: &CanaryFleet, release: Release) -> serde_json::Result<Value> {
    hosts.source(&CanaryRelease {
        commit: release.commit().to_owned(),
        closure: &|channel, role| release.closure(channel.as_str(), role),
        soak: Minutes::from_seconds(SOAK_SECONDS),
        workers_in_flight_percent: WORKERS_IN_FLIGHT_PERCENT,
        channel_edges: vec![
            channel_edge(CHANNELS[0], CHANNELS[1]),
            channel_edge(CHANNELS[1], CHANNELS[2]),
        ],
        host_edge_channel: &ChannelName::from(CHANNELS[1]),
    })
}

fn channel_edge(gates: &str, gated: &str) -> ChannelEdge {
    ChannelEdge {
        gates: ChannelName::from(gates),
        gated: ChannelName::from(gated),
        reason: Some(format!("{gated} waits until {gates} is through")),
    }
}

/// The swarm profile: hosts are slow, crash, need a reboot or lose their network.
pub fn profile() -> anyhow::Result<Value> {
    let profile = json!({
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
    });
    checked(profile)
}

/// The swarm profile for a person: only closures with `-bad-` in their name fail, and always.
pub fn predictable_profile() -> anyhow::Result<Value> {
    checked(json!({
        "failures": [{ "closure": "*-bad-*", "share": 1.0,
                       "fails": { "kind": "probe", "probeName": "http" } }]
    }))
}

fn checked(profile: Value) -> anyhow::Result<Value> {
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
            let hosts = hosts(count);
            assert_eq!(hosts.hostnames().len(), count);
            for release in [Release::Bad, Release::Fixed] {
                let source = source(&hosts, release).unwrap();
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
    fn the_swarm_accepts_the_profiles() {
        profile().unwrap();
        predictable_profile().unwrap();
    }
}
