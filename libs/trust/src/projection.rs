//! Projections of a fleet: the rollout manifest of a channel, and the pinned terms of a rollout.
//!
//! Shared by CI and the control plane.
//!
//! Source: docs/manifests.md, rollout manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nixfleet_proto::fleet::{
    Fleet, ManifestHost, ResolvedBudget, RolloutManifest, RolloutPolicy, SCHEMA_VERSION,
    SkippedHosts, Wave,
};
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::{ChannelName, ChannelRef, ManifestHash, Pinned, PinnedManifest, json};

use crate::artifact::Artifact;
use crate::canonical::{CanonicalizeError, canonical_hash};
use crate::selector_matcher::resolve;
use crate::sorted_lookup::SortedLookup;

/// Error of a projection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ProjectError {
    #[error("the fleet has no channel {0}")]
    UnknownChannel(ChannelName),
    #[error("channel {channel} names the policy {policy:?}, which the fleet does not have")]
    UnknownPolicy {
        channel: ChannelName,
        policy: String,
    },
    /// `meta.signedAt` is absent.
    #[error("the fleet has no time of signing")]
    NotSigned,
}

/// The rollout manifest of a channel; `None` when no host of the channel has a closure.
pub fn project(
    fleet: &Fleet,
    fleet_hash: &ManifestHash,
    channel: &ChannelName,
) -> Result<Option<RolloutManifest>, ProjectError> {
    let hosts = host_sets(fleet).remove(channel).unwrap_or_default();
    manifest(fleet, fleet_hash, channel, hosts, &resolve_budgets(fleet))
}

/// [`project`] for every channel, in one pass over the hosts.
pub fn project_all(
    fleet: &Fleet,
    fleet_hash: &ManifestHash,
) -> Result<BTreeMap<ChannelName, RolloutManifest>, ProjectError> {
    let budgets = resolve_budgets(fleet);
    let mut host_sets = host_sets(fleet);
    let mut manifests = BTreeMap::new();
    for channel in fleet.channels.keys() {
        let hosts = host_sets.remove(channel).unwrap_or_default();
        if let Some(manifest) = manifest(fleet, fleet_hash, channel, hosts, &budgets)? {
            manifests.insert(channel.clone(), manifest);
        }
    }
    Ok(manifests)
}

fn manifest(
    fleet: &Fleet,
    fleet_hash: &ManifestHash,
    channel: &ChannelName,
    host_set: Vec<ManifestHost>,
    budgets: &[ResolvedBudget],
) -> Result<Option<RolloutManifest>, ProjectError> {
    let policy = policy_of(fleet, channel)?;
    if fleet.meta.signed_at.is_none() {
        return Err(ProjectError::NotSigned);
    }
    if host_set.is_empty() {
        return Ok(None);
    }
    let commit = fleet.meta.ci_commit.as_deref().unwrap_or_default();
    Ok(Some(RolloutManifest {
        schema_version: SCHEMA_VERSION,
        display_name: display_name(channel, commit),
        channel: channel.clone(),
        channel_ref: ChannelRef::from(commit),
        fleet_resolved_hash: fleet_hash.clone(),
        host_set,
        health_gate: policy.health_gate.clone(),
        disruption_budgets: budgets.to_vec(),
        meta: fleet.meta.clone(),
    }))
}

fn display_name(channel: &ChannelName, commit: &str) -> String {
    let short: String = commit.chars().take(8).collect();
    let short = if short.is_empty() { "unknown" } else { &short };
    format!("{channel}@{short}")
}

fn policy_of<'f, H>(
    fleet: &'f Fleet<H>,
    channel: &ChannelName,
) -> Result<&'f RolloutPolicy, ProjectError> {
    let declared = fleet
        .channels
        .get(channel)
        .ok_or_else(|| ProjectError::UnknownChannel(channel.clone()))?;
    fleet
        .rollout_policies
        .get(&declared.rollout_policy)
        .ok_or_else(|| ProjectError::UnknownPolicy {
            channel: channel.clone(),
            policy: declared.rollout_policy.clone(),
        })
}

/// The sorted hosts with a closure by channel, each with the first wave that lists it; omits channels
/// without such hosts.
pub(crate) fn host_sets(fleet: &Fleet) -> BTreeMap<ChannelName, Vec<ManifestHost>> {
    let mut sets: BTreeMap<&ChannelName, (SortedLookup<'_, u32>, Vec<ManifestHost>)> =
        BTreeMap::new();
    for (hostname, host) in &fleet.hosts {
        let Some(target_closure) = &host.closure_hash else {
            continue;
        };
        let (first_waves, hosts) = sets.entry(&host.channel).or_insert_with(|| {
            let waves = waves_of(fleet, &host.channel);
            (SortedLookup::first_waves(waves), Vec::new())
        });
        hosts.push(ManifestHost {
            hostname: hostname.clone(),
            wave_index: first_waves.find(hostname).unwrap_or(0),
            target_closure: target_closure.clone(),
        });
    }
    let sets = sets.into_iter();
    sets.map(|(channel, (_, hosts))| (channel.clone(), hosts))
        .collect()
}

pub(crate) fn channels_with_hosts(fleet: &Fleet) -> BTreeSet<&ChannelName> {
    let mut channels = BTreeSet::new();
    let mut last = None;
    for host in fleet.hosts.values() {
        // Consecutive hosts mostly have the same channel.
        if host.closure_hash.is_some() && last != Some(&host.channel) {
            last = Some(&host.channel);
            channels.insert(&host.channel);
        }
    }
    channels
}

fn waves_of<'f, H>(fleet: &'f Fleet<H>, channel: &ChannelName) -> &'f [Wave] {
    fleet.waves.get(channel).map_or(&[], Vec::as_slice)
}

/// The budgets with their resolved hosts of the whole fleet.
pub(crate) fn resolve_budgets(fleet: &Fleet) -> Vec<ResolvedBudget> {
    fleet
        .disruption_budgets
        .iter()
        .map(|budget| ResolvedBudget {
            selector: budget.selector.clone(),
            hosts: resolve(&budget.selector, fleet),
            max_in_flight: budget.max_in_flight,
            max_in_flight_pct: budget.max_in_flight_pct,
        })
        .collect()
}

/// Error of pinning a rollout.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum PinError {
    #[error("the {kind} has no canonical form")]
    Canonicalize {
        kind: &'static str,
        #[source]
        source: CanonicalizeError,
    },
    #[error("the {kind} has the hash {actual} instead of {expected}")]
    Hash {
        kind: &'static str,
        expected: ManifestHash,
        actual: ManifestHash,
    },
    #[error("the document is not a {kind}")]
    Shape {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the fleet does not fit the rollout manifest")]
    Project(#[source] ProjectError),
    #[error("channel {channel} has hosts in wave {wave}, for which its policy gives no soak")]
    SoakMissing {
        channel: ChannelName,
        /// Zero-based wave.
        wave: u32,
    },
}

/// The terms of a rollout of this manifest.
///
/// Checks the hashes of the bytes, not their signatures: folding a log must give the same state after a
/// key rotation.
///
/// Source: docs/semantics.md, rollout machine.
pub fn pin(
    manifest_bytes: &[u8],
    fleet_bytes: &[u8],
    manifest_hash: &ManifestHash,
) -> Result<PinnedManifest, PinError> {
    UnpinnedManifest::read(manifest_bytes, manifest_hash)?.pin(fleet_bytes)
}

/// [`pin`] in two steps, for callers that fetch the fleet named by the manifest.
#[derive(Debug)]
pub struct UnpinnedManifest(RolloutManifest);

impl UnpinnedManifest {
    /// Reads the manifest.
    ///
    /// # Errors
    /// Like [`pin`], for the manifest alone.
    pub fn read(bytes: &[u8], hash: &ManifestHash) -> Result<Self, PinError> {
        Ok(Self(read(bytes, hash)?))
    }

    /// Hash of the fleet.
    pub fn fleet_hash(&self) -> &ManifestHash {
        &self.0.fleet_resolved_hash
    }

    /// Reads the fleet and pins the terms. The manifest has all data about hosts.
    pub fn pin(self, fleet_bytes: &[u8]) -> Result<PinnedManifest, PinError> {
        let fleet: Fleet<SkippedHosts> = read(fleet_bytes, self.fleet_hash())?;
        pin_verified(&self.0, &fleet)
    }
}

/// [`pin`] for verified documents of one release.
///
/// # Errors
/// [`PinError::Project`] and [`PinError::SoakMissing`].
pub fn pin_verified<H>(
    manifest: &RolloutManifest,
    fleet: &Fleet<H>,
) -> Result<PinnedManifest, PinError> {
    Ok(PinnedManifest {
        rollout_id: manifest.rollout_id(),
        pinned: Arc::new(pinned(manifest, fleet)?),
    })
}

fn pinned<H>(manifest: &RolloutManifest, fleet: &Fleet<H>) -> Result<Pinned, PinError> {
    let channel = &manifest.channel;
    let policy = policy_of(fleet, channel).map_err(PinError::Project)?;
    let waves = policy
        .waves
        .iter()
        .zip(0_u32..)
        .map(|(wave, index)| {
            let soak_minutes = wave.soak_minutes.ok_or_else(|| PinError::SoakMissing {
                channel: channel.clone(),
                wave: index,
            })?;
            Ok(PinnedWave { soak_minutes })
        })
        .collect::<Result<Vec<_>, PinError>>()?;
    let declared = waves_of(fleet, channel);
    let mut staged = SortedLookup::first_waves(declared);
    let host_set = manifest
        .host_set
        .iter()
        .map(|host| {
            if usize::try_from(host.wave_index).map_or(true, |index| index >= waves.len()) {
                return Err(PinError::SoakMissing {
                    channel: channel.clone(),
                    wave: host.wave_index,
                });
            }
            Ok(PinnedHost {
                hostname: host.hostname.clone(),
                wave_index: host.wave_index,
                target_closure: host.target_closure.clone(),
                staged: declared.is_empty() || staged.find(&host.hostname).is_some(),
            })
        })
        .collect::<Result<Vec<_>, PinError>>()?;
    Ok(Pinned {
        on_health_failure: policy.on_health_failure,
        waves,
        host_set,
        disruption_budgets: manifest.disruption_budgets.clone(),
    })
}

fn read<T: Artifact>(bytes: &[u8], expected: &ManifestHash) -> Result<T, PinError> {
    let kind = T::KIND;
    let actual = canonical_hash(bytes).map_err(|source| PinError::Canonicalize { kind, source })?;
    if actual != *expected {
        return Err(PinError::Hash {
            kind,
            expected: expected.clone(),
            actual,
        });
    }
    let mut read: T = json::read(bytes).map_err(|source| PinError::Shape { kind, source })?;
    read.normalise();
    Ok(read)
}

#[cfg(test)]
mod tests;
