//! The current release, indexed for the gates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::{ChannelName, Hostname, ManifestHash, RolloutId, Timestamp};

/// Grace period of freshness, for differences between clocks.
pub const FRESHNESS_SLACK: TimeDelta = TimeDelta::seconds(60);

/// The rollout manifest of one channel with its hash.
#[derive(Debug, Clone)]
pub struct ChannelManifest {
    /// The manifest.
    pub manifest: Arc<RolloutManifest>,
    /// Hash of its canonical bytes.
    pub hash: ManifestHash,
}

/// A verified release: the fleet and the manifest of every channel with hosts.
#[derive(Debug, Clone)]
pub struct Release {
    fleet: Arc<Fleet>,
    manifests: BTreeMap<ChannelName, ChannelManifest>,
    /// Channels in which at least one host has a closure.
    populated: BTreeSet<ChannelName>,
    /// Gating hosts by gated host, in the order of the fleet.
    host_edges: BTreeMap<Hostname, Vec<GatingHost>>,
    /// Predecessor channels by gated channel, in the order of the fleet.
    channel_edges: BTreeMap<ChannelName, Vec<ChannelName>>,
}

/// A host that must be done before another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatingHost {
    /// Its name.
    pub hostname: Hostname,
    /// False when the fleet does not name it, or on another channel only: nobody knows whether it is done.
    pub is_of_channel: bool,
}

impl Release {
    /// Indexes a release. Fleet and manifests must have been verified.
    pub fn new(fleet: Arc<Fleet>, manifests: BTreeMap<ChannelName, ChannelManifest>) -> Self {
        let mut populated: BTreeSet<ChannelName> = BTreeSet::new();
        for host in fleet.hosts.values() {
            if host.closure_hash.is_some() && !populated.contains(&host.channel) {
                populated.insert(host.channel.clone());
            }
        }
        let mut channel_edges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for edge in &fleet.channel_edges {
            let predecessors = channel_edges.entry(edge.gated.clone()).or_default();
            predecessors.push(edge.gates.clone());
        }
        Self {
            populated,
            host_edges: host_edges(&fleet),
            channel_edges,
            manifests,
            fleet,
        }
    }

    /// The fleet.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Manifests by channel.
    pub fn manifests(&self) -> &BTreeMap<ChannelName, ChannelManifest> {
        &self.manifests
    }

    /// The rollout that the channel's manifest asks for.
    pub fn current_rollout(&self, channel: &ChannelName) -> Option<RolloutId> {
        let of_channel = self.manifests.get(channel)?;
        Some(of_channel.manifest.rollout_id())
    }

    /// True when a host of the channel has a closure.
    pub fn is_populated(&self, channel: &ChannelName) -> bool {
        self.populated.contains(channel)
    }

    /// Channels that must be finished before `channel` starts.
    pub fn predecessors(&self, channel: &ChannelName) -> &[ChannelName] {
        self.channel_edges.get(channel).map_or(&[], Vec::as_slice)
    }

    /// Hosts that must be done before `hostname`.
    pub fn gating_hosts(&self, hostname: &Hostname) -> &[GatingHost] {
        self.host_edges.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// Every host that waits for another one.
    pub fn gated_hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.host_edges.keys()
    }

    /// The last instant at which the channel's manifest is fresh; absent when the channel, its
    /// manifest or the time of signing is unknown.
    pub fn fresh_until(&self, channel: &ChannelName) -> Option<Timestamp> {
        let window = self.fleet.channels.get(channel)?.freshness_window;
        let signed_at = self.manifests.get(channel)?.manifest.meta.signed_at?;
        let minutes = i64::try_from(window).ok()?;
        let window = TimeDelta::try_minutes(minutes)?.checked_add(&FRESHNESS_SLACK)?;
        signed_at.checked_add_signed(window)
    }
}

fn host_edges(fleet: &Fleet) -> BTreeMap<Hostname, Vec<GatingHost>> {
    let mut edges: BTreeMap<Hostname, Vec<GatingHost>> = BTreeMap::new();
    for edge in &fleet.edges {
        let channel_of = |hostname| fleet.hosts.get(hostname).map(|host| &host.channel);
        let is_of_channel = channel_of(&edge.gated) == channel_of(&edge.gates);
        let hostname = edge.gates.clone();
        edges
            .entry(edge.gated.clone())
            .or_default()
            .push(GatingHost {
                hostname,
                is_of_channel,
            });
    }
    edges
}
