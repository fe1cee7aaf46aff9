//! The rollout manifest of a channel, derived from its fleet by CI and by the control plane alike.
//!
//! Source: docs/manifests.md, rollout manifest.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::fleet::{
    Fleet, ManifestHost, ResolvedBudget, RolloutManifest, RolloutPolicy, SCHEMA_VERSION, Wave,
};
use nixfleet_proto::{ChannelName, ChannelRef, ManifestHash};

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

pub(crate) fn policy_of<'f, H>(
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

pub(crate) fn waves_of<'f, H>(fleet: &'f Fleet<H>, channel: &ChannelName) -> &'f [Wave] {
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

#[cfg(test)]
mod tests;
