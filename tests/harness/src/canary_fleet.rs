//! Fleets whose channels have canaries and workers, and the sources of their releases.

use std::collections::BTreeMap;

use nixfleet_proto::fleet::{
    Channel, ChannelEdge, DisruptionBudget, Fleet, FleetHost, FleetHosts, HostEdge, Meta,
    PolicyWave, RolloutPolicy, SCHEMA_VERSION, Selector,
};
use nixfleet_proto::{ChannelName, ClosureHash, Hostname, Minutes, OnHealthFailure};
use serde_json::Value;

/// Name of the only rollout policy.
const POLICY: &str = "careful";

/// The wave of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first wave.
    Canary,
    /// The second wave.
    Worker,
}

impl Role {
    /// The tag that selects the hosts of this role.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Worker => "worker",
        }
    }
}

#[derive(Debug, Clone)]
struct Member {
    hostname: Hostname,
    role: Role,
}

/// The hosts of a fleet by channel.
#[derive(Debug, Clone)]
pub struct CanaryFleet {
    channels: Vec<(ChannelName, Vec<Member>)>,
}

/// A release of a [`CanaryFleet`].
pub struct CanaryRelease<'a> {
    /// The commit that it is built from.
    pub commit: String,
    /// The target closure of all hosts of a channel and role.
    pub closure: &'a dyn Fn(&ChannelName, Role) -> ClosureHash,
    /// Soak of both waves.
    pub soak: Minutes,
    /// Largest part of all workers in flight, in percent, over all channels.
    pub workers_in_flight_percent: u64,
    /// Order of the channels.
    pub channel_edges: Vec<ChannelEdge>,
    /// The channel whose last worker waits for its first one.
    pub host_edge_channel: &'a ChannelName,
}

impl CanaryFleet {
    /// Names so many hosts of each channel; one of every `canary_interval` is a canary.
    pub fn new(
        channels: impl IntoIterator<Item = (ChannelName, usize)>,
        canary_interval: usize,
    ) -> Self {
        let member = |channel: &ChannelName, index: usize| Member {
            hostname: format!("{channel}-{index:04}")
                .parse()
                .expect("a channel of the fleet and a number are a label"),
            role: if index.is_multiple_of(canary_interval) {
                Role::Canary
            } else {
                Role::Worker
            },
        };
        let channels = channels.into_iter().map(|(channel, count)| {
            let members = (0..count).map(|index| member(&channel, index)).collect();
            (channel, members)
        });
        Self {
            channels: channels.collect(),
        }
    }

    /// The channels in the order in which they were given.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.iter().map(|(channel, _)| channel)
    }

    /// The names of all hosts.
    pub fn hostnames(&self) -> Vec<String> {
        let members = self.channels.iter().flat_map(|(_, members)| members);
        members.map(|member| member.hostname.to_string()).collect()
    }

    /// The source of a release, as `nixfleet release` reads it.
    ///
    /// # Errors
    /// Never, in practice: the fleet is data.
    pub fn source(&self, release: &CanaryRelease<'_>) -> serde_json::Result<Value> {
        let channels = self.channels().map(|name| (name.clone(), channel()));
        let fleet = Fleet {
            schema_version: SCHEMA_VERSION,
            hosts: self.hosts(release),
            channels: channels.collect(),
            rollout_policies: [(POLICY.to_owned(), policy(release.soak))].into(),
            waves: BTreeMap::default(),
            edges: self.host_edge(release.host_edge_channel),
            channel_edges: release.channel_edges.clone(),
            disruption_budgets: vec![DisruptionBudget {
                selector: tagged(Role::Worker),
                max_in_flight: None,
                max_in_flight_pct: Some(release.workers_in_flight_percent),
            }],
            meta: Meta {
                schema_version: SCHEMA_VERSION,
                signed_at: None,
                ci_commit: Some(release.commit.clone()),
                signature_algorithm: None,
            },
        };
        let mut source = serde_json::to_value(fleet)?;
        // Without this key the release tool resolves the waves from the selectors.
        if let Some(source) = source.as_object_mut() {
            source.remove("waves");
        }
        Ok(source)
    }

    fn hosts(&self, release: &CanaryRelease<'_>) -> FleetHosts {
        let mut hosts = FleetHosts::default();
        for (channel, members) in &self.channels {
            for Member { hostname, role } in members {
                let host = FleetHost {
                    system: "x86_64-linux".to_owned(),
                    tags: vec![role.tag().to_owned()],
                    channel: channel.clone(),
                    closure_hash: Some((release.closure)(channel, *role)),
                    pubkey: None,
                    pin: None,
                };
                hosts.insert(hostname.clone(), host);
            }
        }
        hosts
    }

    fn host_edge(&self, channel: &ChannelName) -> Vec<HostEdge> {
        let members = self.channels.iter().find(|(name, _)| name == channel);
        let members = members.into_iter().flat_map(|(_, members)| members);
        let mut workers = members.filter(|member| member.role == Role::Worker);
        let edge = workers
            .next()
            .zip(workers.next_back())
            .map(|(first, last)| HostEdge {
                gated: last.hostname.clone(),
                gates: first.hostname.clone(),
                reason: Some("the database before its reader".to_owned()),
            });
        edge.into_iter().collect()
    }
}

fn channel() -> Channel {
    Channel {
        rollout_policy: POLICY.to_owned(),
        reconcile_interval_minutes: 30,
        freshness_window: 1_440,
        signing_interval_minutes: 60,
    }
}

fn policy(soak: Minutes) -> RolloutPolicy {
    let wave = |selector| PolicyWave {
        selector,
        soak_minutes: Some(soak),
    };
    let rest = Selector {
        all: true,
        ..Selector::default()
    };
    RolloutPolicy {
        strategy: "waves".to_owned(),
        waves: vec![wave(tagged(Role::Canary)), wave(rest)],
        health_gate: serde_json::Map::default(),
        on_health_failure: OnHealthFailure::RollbackAndHalt,
    }
}

fn tagged(role: Role) -> Selector {
    Selector {
        tags: vec![role.tag().to_owned()],
        ..Selector::default()
    }
}
