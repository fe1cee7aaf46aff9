//! The fleet that is rolled forward all the time, and its releases.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::fleet::{
    Channel, ChannelEdge, DisruptionBudget, Fleet, FleetHost, FleetHosts, HostEdge, Meta,
    PolicyWave, RolloutPolicy, SCHEMA_VERSION, Selector,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, ClosureHash, Hostname, Minutes, OnHealthFailure};
use nixfleet_swarm::profile::Profile;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Partitions of the fleet.
pub const PARTITIONS: u16 = 4;
/// Channels in each of them, so that no partition is ever without work.
const CHANNELS_EACH: usize = 2;
/// Seconds a host stays under watch after activation.
const SOAK_SECONDS: u64 = 1;
/// Every canary is one of this many hosts of its channel.
const CANARY_EACH: usize = 3;
/// Part of the releases that have something wrong, in percent.
const FAULTY_PERCENT: u32 = 40;

/// What a closure does on some of its hosts.
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

/// One release.
#[derive(Debug, Clone)]
pub struct Release {
    /// From 1, in the order of publication.
    pub number: u32,
    /// Channels whose workers get something else than a good closure.
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
    channels: Vec<(ChannelName, Vec<(Hostname, Role)>)>,
}

impl Hosts {
    /// Names `count` hosts and spreads them evenly over the channels.
    pub fn new(count: usize) -> Self {
        let mut channels: Vec<_> = channels()
            .into_iter()
            .map(|name| (name, Vec::new()))
            .collect();
        let number = channels.len();
        for index in 0..count {
            let (channel, hosts) = &mut channels[index % number];
            let name = Hostname::from(format!("{channel}-{:04}", hosts.len()));
            hosts.push((name, Role::of(hosts.len())));
        }
        Self { channels }
    }

    /// Every name.
    pub fn names(&self) -> Vec<String> {
        self.all().map(|(_, name, _)| name.to_string()).collect()
    }

    fn all(&self) -> impl Iterator<Item = (&ChannelName, &Hostname, Role)> {
        self.channels.iter().flat_map(|(channel, hosts)| {
            hosts
                .iter()
                .map(move |(hostname, role)| (channel, hostname, *role))
        })
    }

    /// A release that works everywhere.
    pub fn good(&self, number: u32) -> Release {
        Release {
            number,
            faulty: BTreeMap::new(),
        }
    }

    /// A release that may have something wrong in some channels.
    pub fn draw(&self, number: u32, rng: &mut StdRng) -> Release {
        let mut release = self.good(number);
        if rng.random_range(0..100) >= FAULTY_PERCENT {
            return release;
        }
        for (channel, _) in &self.channels {
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
        let hosts: FleetHosts = self
            .all()
            .map(|(channel, hostname, role)| {
                let host = FleetHost {
                    system: "x86_64-linux".to_owned(),
                    tags: vec![role.tag().to_owned()],
                    channel: channel.clone(),
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
            channels: self
                .channels
                .iter()
                .map(|(name, _)| (name.clone(), channel()))
                .collect(),
            rollout_policies: [("careful".to_owned(), policy())].into(),
            waves: BTreeMap::default(),
            edges: self.host_edge(),
            channel_edges: self.channel_edge(),
            disruption_budgets: vec![budget()],
            meta: Meta {
                schema_version: SCHEMA_VERSION,
                signed_at: None,
                ci_commit: Some(release.commit()),
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

    /// The second channel waits for the first; they are in different partitions or in one, as it
    /// comes.
    fn channel_edge(&self) -> Vec<ChannelEdge> {
        let names: Vec<&ChannelName> = self.channels.iter().map(|(name, _)| name).collect();
        vec![ChannelEdge {
            gates: names[0].clone(),
            gated: names[1].clone(),
            reason: Some("the proving ground first".to_owned()),
        }]
    }

    /// The last worker of the last channel waits for its first one.
    fn host_edge(&self) -> Vec<HostEdge> {
        let hosts = self.channels.last().map(|(_, hosts)| hosts.as_slice());
        let workers: Vec<&Hostname> = hosts
            .unwrap_or_default()
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

/// Names that give every partition its channels.
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

fn channel() -> Channel {
    Channel {
        rollout_policy: "careful".to_owned(),
        reconcile_interval_minutes: 30,
        freshness_window: 1_440,
        signing_interval_minutes: 60,
    }
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

/// At most half of all workers at once, over all channels and partitions.
fn budget() -> DisruptionBudget {
    DisruptionBudget {
        selector: Selector {
            tags: vec![Role::Worker.tag().to_owned()],
            ..Selector::default()
        },
        max_in_flight: None,
        max_in_flight_pct: Some(50),
    }
}

/// What happens to the hosts: some fail, need a reboot, or their agents die. Nobody loses the network
/// by himself: how long events wait is measured.
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
    fn some_releases_are_faulty_and_some_are_not() {
        let hosts = Hosts::new(48);
        let mut rng = StdRng::seed_from_u64(5);
        let good = (0..50)
            .filter(|n| hosts.draw(*n, &mut rng).is_good())
            .count();
        assert!((10..45).contains(&good), "{good}");
    }

    #[test]
    fn the_swarm_takes_the_profile() {
        profile().unwrap();
    }
}
