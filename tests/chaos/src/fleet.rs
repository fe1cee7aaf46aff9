//! The fleet of a run and its releases.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_harness::canary_fleet::{CanaryFleet, CanaryRelease, Role};
use nixfleet_proto::fleet::ChannelEdge;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, ClosureHash, Hostname, Minutes};
use nixfleet_swarm::profile::Profile;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Partitions of the fleet.
pub const PARTITIONS: u16 = 4;
/// Channels of each partition, so that every partition has work.
const CHANNELS_EACH: usize = 2;
/// Soak of each wave.
const SOAK_SECONDS: u64 = 1;
/// Hosts of a channel for each canary.
const CANARY_INTERVAL: usize = 3;
/// Largest part of all workers in flight, over all channels and partitions.
const WORKERS_IN_FLIGHT_PERCENT: u64 = 50;
/// Part of the releases with a faulty closure, in percent.
const FAULTY_PERCENT: u32 = 40;

/// Behaviour of a closure on some of its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Works everywhere.
    Good,
    /// Activates, then fails its probe.
    Bad,
    /// Does not activate.
    Broken,
}

impl Health {
    fn tag(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Broken => "broken",
        }
    }
}

/// A release.
#[derive(Debug, Clone)]
pub struct Release {
    /// Number of the release, from 1, in the order of publication.
    pub number: u32,
    /// Channels whose workers get a faulty closure.
    faulty: BTreeMap<ChannelName, Health>,
}

impl Release {
    /// The commit it is built from.
    pub fn commit(&self) -> String {
        format!("c{:07x}", self.number)
    }

    /// True when every closure works.
    pub fn is_good(&self) -> bool {
        self.faulty.is_empty()
    }

    fn closure(&self, channel: &ChannelName, role: Role) -> ClosureHash {
        let health = match role {
            Role::Canary => Health::Good,
            Role::Worker => self.faulty.get(channel).copied().unwrap_or(Health::Good),
        };
        ClosureHash::from(format!(
            "r{:05}-{}-nixos-system-{channel}-{}",
            self.number,
            health.tag(),
            role.tag()
        ))
    }
}

/// The hosts of the fleet, spread evenly over its channels.
#[derive(Debug, Clone)]
pub struct Hosts(CanaryFleet);

impl Hosts {
    /// Names `count` hosts.
    pub fn new(count: usize) -> Self {
        let names = channels();
        let channels = names.len();
        let counts = (0..channels).map(|index| (count + channels - 1 - index) / channels);
        Self(CanaryFleet::new(
            names.into_iter().zip(counts),
            CANARY_INTERVAL,
        ))
    }

    /// The names of all hosts.
    pub fn names(&self) -> Vec<String> {
        self.0.hostnames()
    }

    /// The last host of the last channel.
    pub fn last_host(&self) -> Hostname {
        let last = self.0.hostnames().pop();
        let hostname = last.and_then(|name| name.parse().ok());
        hostname.expect("a fleet has hosts with valid names")
    }

    /// A release that works everywhere.
    pub fn good(&self, number: u32) -> Release {
        Release {
            number,
            faulty: BTreeMap::new(),
        }
    }

    /// A release that is faulty in some channels with a probability of [`FAULTY_PERCENT`].
    pub fn draw(&self, number: u32, rng: &mut StdRng) -> Release {
        let mut release = self.good(number);
        if rng.random_range(0..100) >= FAULTY_PERCENT {
            return release;
        }
        for channel in self.0.channels() {
            let health = match rng.random_range(0..4) {
                0 => Health::Bad,
                1 => Health::Broken,
                _ => continue,
            };
            release.faulty.insert(channel.clone(), health);
        }
        release
    }

    /// The source of a release, as `nixfleet release` reads it.
    ///
    /// # Errors
    /// Never, in practice: the fleet is data.
    pub fn source(&self, release: &Release) -> serde_json::Result<Value> {
        let names: Vec<&ChannelName> = self.0.channels().collect();
        self.0.source(&CanaryRelease {
            commit: release.commit(),
            closure: &|channel, role| release.closure(channel, role),
            soak: Minutes::from_seconds(SOAK_SECONDS),
            workers_in_flight_percent: WORKERS_IN_FLIGHT_PERCENT,
            // The two channels may or may not share a partition.
            channel_edges: vec![ChannelEdge {
                gates: names[0].clone(),
                gated: names[1].clone(),
                reason: Some("the proving ground first".to_owned()),
            }],
            host_edge_channel: names[names.len() - 1],
        })
    }
}

/// Channel names of which [`CHANNELS_EACH`] hash to each partition.
fn channels() -> BTreeSet<ChannelName> {
    let mut by_partition: BTreeMap<Partition, usize> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let wanted = usize::from(PARTITIONS) * CHANNELS_EACH;
    for number in 1_u32.. {
        let name = ChannelName::from(format!("line{number:02}"));
        let count = by_partition
            .entry(Partition::of(&name, PARTITIONS))
            .or_default();
        if *count < CHANNELS_EACH {
            *count += 1;
            names.insert(name);
        }
        if names.len() == wanted {
            break;
        }
    }
    names
}

/// The swarm profile: hosts fail, need a reboot, or their agents die. No host loses its network on its own,
/// because a run measures how long events wait.
///
/// # Errors
/// When the profile has faults.
pub fn profile() -> anyhow::Result<Value> {
    let profile = json!({
        "activationMs": { "min": 200, "max": 1200 },
        "rollbackMs": { "min": 200, "max": 800 },
        "probes": [
            { "probeName": "http", "kind": "http", "mode": "enforce" },
            { "probeName": "disk", "kind": "exec", "mode": "observe" }
        ],
        "failures": [
            { "closure": "*-bad-*", "share": 0.5, "fails": { "kind": "probe", "probeName": "http" } },
            { "closure": "*-broken-*", "share": 0.5,
              "fails": { "kind": "activation", "exitCode": 4 } },
            { "closure": "*-good-*", "share": 0.05,
              "fails": { "kind": "probe", "probeName": "http", "recoversAfterMs": 700 } }
        ],
        "deferral": { "closure": "*-good-*", "share": 0.03,
                      "rebootAfterMs": { "min": 500, "max": 2000 } },
        "crash": { "closure": "*", "share": 0.05,
                   "points": ["before-switch", "after-switch", "during-rollback"],
                   "restartAfterMs": { "min": 300, "max": 1000 } }
    });
    Profile::parse(profile.to_string().as_bytes())?;
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use nixfleet_harness::release::Signer;
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_partition_has_its_channels() {
        let mut partitions: BTreeMap<Partition, usize> = BTreeMap::new();
        for name in channels() {
            *partitions
                .entry(Partition::of(&name, PARTITIONS))
                .or_default() += 1;
        }
        assert_eq!(partitions.len(), usize::from(PARTITIONS));
        assert!(partitions.values().all(|count| *count == CHANNELS_EACH));
    }

    #[test]
    fn releases_are_complete_at_every_size() {
        let signer = Signer::development().unwrap();
        let mut rng = StdRng::seed_from_u64(5);
        for count in [16, 17, 48, 200] {
            let hosts = Hosts::new(count);
            assert_eq!(hosts.names().len(), count);
            for number in 1..6 {
                let release = hosts.draw(number, &mut rng);
                let source = hosts.source(&release).unwrap();
                let built = signer
                    .release(&source, &release.commit(), chrono::Utc::now())
                    .unwrap();
                assert_eq!(built.rollouts.len(), channels().len());
                assert!(built.notices.is_empty(), "{:?}", built.notices);
            }
        }
    }

    #[test]
    fn faulty_and_good_releases_are_mixed() {
        let hosts = Hosts::new(48);
        let mut rng = StdRng::seed_from_u64(5);
        let good = (0..50)
            .filter(|n| hosts.draw(*n, &mut rng).is_good())
            .count();
        assert!((10..45).contains(&good), "{good}");
    }

    #[test]
    fn the_swarm_accepts_the_profile() {
        profile().unwrap();
    }
}
