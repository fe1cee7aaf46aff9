//! Rules of a complete fleet.

use std::collections::BTreeSet;

use nixfleet_proto::bounds::TEXT_BYTES_MAX;
use nixfleet_proto::fleet::{Channel, Fleet, FleetHost, HostEdge, RolloutPolicy, SCHEMA_VERSION};
use nixfleet_proto::id::{is_channel_name, is_channel_ref};
use nixfleet_proto::{ChannelName, Hostname, Minutes};

use super::edge_cycles::cycles;
use super::fault::{Fault, Findings, Notice};
use super::text_checks::check_texts;
use crate::rollout_manifest::channels_with_hosts;
use crate::selector_matcher::Matcher;
use crate::sorted_lookup::SortedLookup;

/// Longest soak in minutes: a year.
pub const SOAK_MINUTES_MAX: u64 = 525_600;

/// Longest freshness window in minutes: ten years.
pub const FRESHNESS_MINUTES_MAX: u64 = 5_256_000;

/// Most waves of a channel or policy: holds are stored per wave.
pub const WAVES_MAX: usize = 256;

/// Finds the faults of a normalised fleet.
///
/// Source: docs/semantics.md, admission.
pub fn check_fleet(fleet: &Fleet, findings: &mut Findings) {
    for (at, version) in [
        ("schemaVersion", fleet.schema_version),
        ("meta.schemaVersion", fleet.meta.schema_version),
    ] {
        check_schema(at.to_owned(), version, findings);
    }
    check_hosts(fleet, findings);
    check_texts(fleet, findings);
    for (name, policy) in &fleet.rollout_policies {
        check_policy(name, policy, findings);
    }
    let with_hosts = channels_with_hosts(fleet);
    for (name, channel) in &fleet.channels {
        let has_hosts = HasHosts(with_hosts.contains(name));
        check_channel(fleet, (name, channel), has_hosts, findings);
    }
    check_waves(fleet, &with_hosts, findings);
    check_budgets(fleet, findings);
    check_edges(fleet, findings);
    check_ref(fleet, &with_hosts, findings);
}

pub(super) fn check_schema(at: String, version: u64, findings: &mut Findings) {
    if version != SCHEMA_VERSION {
        findings.fault(Fault::SchemaVersion { at, version });
    }
}

fn check_hosts(fleet: &Fleet, findings: &mut Findings) {
    let mut any_closure = false;
    for (hostname, host) in &fleet.hosts {
        if !is_certifiable(hostname) {
            findings.fault(Fault::NameIllegal {
                at: "hosts".to_owned(),
                name: hostname.to_string(),
                reason: "is the common name of another host's certificate: agent-<host>.<suffix> is \
                         for <host>",
            });
        }
        if !fleet.channels.contains_key(&host.channel) {
            findings.fault(Fault::UnknownChannel {
                at: format!("hosts.{hostname}.channel"),
                channel: host.channel.clone(),
            });
        }
        any_closure |= host.closure_hash.is_some();
    }
    if !any_closure {
        findings.fault(Fault::SkippedHosts);
    }
}

/// True when a certificate with this common name is for this host.
fn is_certifiable(hostname: &Hostname) -> bool {
    Hostname::of_common_name(hostname.as_str()).is_ok_and(|host| host == *hostname)
}

fn check_policy(name: &str, policy: &RolloutPolicy, findings: &mut Findings) {
    check_wave_count(
        format!("rolloutPolicies.{name}.waves"),
        policy.waves.len(),
        findings,
    );
    for (index, wave) in policy.waves.iter().enumerate() {
        let at = format!("rolloutPolicies.{name}.waves[{index}].soakMinutes");
        match wave.soak_minutes {
            None => findings.fault(Fault::SoakMissing { at }),
            Some(soak) if soak > Minutes::from_minutes(SOAK_MINUTES_MAX) => {
                findings.fault(Fault::SoakTooLong { at, soak });
            }
            Some(_) => {}
        }
    }
}

fn check_wave_count(at: String, count: usize, findings: &mut Findings) {
    if count > WAVES_MAX {
        findings.fault(Fault::TooManyWaves {
            at,
            count,
            max: WAVES_MAX,
        });
    }
}

#[derive(Clone, Copy)]
struct HasHosts(bool);

fn check_channel(
    fleet: &Fleet,
    (name, channel): (&ChannelName, &Channel),
    HasHosts(has_hosts): HasHosts,
    findings: &mut Findings,
) {
    if !is_channel_name(name.as_str()) {
        findings.fault(Fault::NameIllegal {
            at: "channels".to_owned(),
            name: name.as_str().chars().take(80).collect(),
            reason: "must be one or more of a-z, 0-9, '_' and '-'",
        });
    }
    if channel.freshness_window > FRESHNESS_MINUTES_MAX {
        findings.fault(Fault::FreshnessTooLong {
            at: format!("channels.{name}.freshnessWindow"),
            minutes: channel.freshness_window,
        });
    }
    let Some(policy) = fleet.rollout_policies.get(&channel.rollout_policy) else {
        findings.fault(Fault::UnknownPolicy {
            at: format!("channels.{name}.rolloutPolicy"),
            policy: channel.rollout_policy.clone(),
        });
        return;
    };
    // Hosts of a channel without waves are all in wave 0.
    let declared = fleet.waves.get(name).map_or(0, Vec::len);
    let needed = if declared == 0 && has_hosts {
        1
    } else {
        declared.min(WAVES_MAX)
    };
    for wave in policy.waves.len()..needed {
        findings.fault(Fault::SoakMissing {
            at: format!(
                "waves.{name}[{wave}]: policy {:?} has no wave {wave}",
                channel.rollout_policy
            ),
        });
    }
}

fn check_budgets(fleet: &Fleet, findings: &mut Findings) {
    for (index, budget) in fleet.disruption_budgets.iter().enumerate() {
        let matcher = Matcher::new(&budget.selector);
        let mut hosts = fleet.hosts.iter();
        if !hosts.any(|(hostname, host)| matcher.matches(hostname, host)) {
            findings.notice(Notice::EmptySelection {
                at: format!("disruptionBudgets[{index}].selector"),
            });
        }
    }
}

fn check_waves(fleet: &Fleet, with_hosts: &BTreeSet<&ChannelName>, findings: &mut Findings) {
    let mut hosts = SortedLookup::hosts(fleet);
    for (name, waves) in &fleet.waves {
        if !fleet.channels.contains_key(name) {
            findings.fault(Fault::UnknownChannel {
                at: "waves".to_owned(),
                channel: name.clone(),
            });
        }
        check_wave_count(format!("waves.{name}"), waves.len(), findings);
        for (index, wave) in waves.iter().enumerate() {
            if wave.hosts.is_empty() && with_hosts.contains(name) {
                findings.notice(Notice::EmptySelection {
                    at: format!("waves.{name}[{index}]"),
                });
            }
            for hostname in &wave.hosts {
                let host = hosts.find(hostname);
                check_wave_host((hostname, host), (name, index), findings);
            }
        }
        if waves.is_empty() {
            continue;
        }
        let mut listed = SortedLookup::first_waves(waves);
        for (hostname, host) in &fleet.hosts {
            let is_due = host.channel == *name && host.closure_hash.is_some();
            if is_due && listed.find(hostname).is_none() {
                findings.notice(Notice::HostUnstaged {
                    hostname: hostname.clone(),
                    channel: name.clone(),
                });
            }
        }
    }
}

fn check_wave_host(
    (hostname, host): (&Hostname, Option<&FleetHost>),
    (channel, index): (&ChannelName, usize),
    findings: &mut Findings,
) {
    let at = || format!("waves.{channel}[{index}].hosts");
    match host {
        None => findings.fault(Fault::UnknownHost {
            at: at(),
            hostname: hostname.clone(),
        }),
        Some(host) if host.channel != *channel => findings.notice(Notice::WaveHostElsewhere {
            at: at(),
            hostname: hostname.clone(),
            channel: host.channel.clone(),
        }),
        Some(host) if host.closure_hash.is_none() => {
            findings.notice(Notice::WaveHostWithoutClosure {
                at: at(),
                hostname: hostname.clone(),
            });
        }
        Some(_) => {}
    }
}

/// The hosts of an edge between two channels.
fn across_channels<'f>(fleet: &Fleet, edge: &'f HostEdge) -> Option<(&'f Hostname, &'f Hostname)> {
    let channel = |hostname| fleet.hosts.get(hostname).map(|host| &host.channel);
    let (gated, gates) = (channel(&edge.gated)?, channel(&edge.gates)?);
    (gated != gates).then_some((&edge.gated, &edge.gates))
}

/// Refuses edges that would hold a host for ever.
pub(crate) fn refuse_edges_across_channels(fleet: &Fleet, findings: &mut Findings) {
    for (index, edge) in fleet.edges.iter().enumerate() {
        if let Some((gated, gates)) = across_channels(fleet, edge) {
            findings.fault(Fault::EdgeAcrossChannels {
                at: format!("edges[{index}]"),
                gated: gated.clone(),
                gates: gates.clone(),
            });
        }
    }
}

fn check_edges(fleet: &Fleet, findings: &mut Findings) {
    for (index, edge) in fleet.edges.iter().enumerate() {
        for (key, hostname) in [("gated", &edge.gated), ("gates", &edge.gates)] {
            if !fleet.hosts.contains_key(hostname) {
                findings.fault(Fault::UnknownHost {
                    at: format!("edges[{index}].{key}"),
                    hostname: hostname.clone(),
                });
            }
        }
        if let Some((gated, gates)) = across_channels(fleet, edge) {
            findings.notice(Notice::EdgeAcrossChannels {
                at: format!("edges[{index}]"),
                gated: gated.clone(),
                gates: gates.clone(),
            });
        }
    }
    for (index, edge) in fleet.channel_edges.iter().enumerate() {
        for (key, channel) in [("gated", &edge.gated), ("gates", &edge.gates)] {
            if !fleet.channels.contains_key(channel) {
                findings.fault(Fault::UnknownChannel {
                    at: format!("channelEdges[{index}].{key}"),
                    channel: channel.clone(),
                });
            }
        }
    }
    let hosts = fleet
        .edges
        .iter()
        .map(|edge| (edge.gated.as_str(), edge.gates.as_str()));
    let channels = fleet
        .channel_edges
        .iter()
        .map(|edge| (edge.gated.as_str(), edge.gates.as_str()));
    for (at, found) in [("edges", cycles(hosts)), ("channelEdges", cycles(channels))] {
        for path in found {
            findings.fault(Fault::Cycle {
                at: at.to_owned(),
                path,
            });
        }
    }
}

fn check_ref(fleet: &Fleet, with_hosts: &BTreeSet<&ChannelName>, findings: &mut Findings) {
    let commit = fleet.meta.ci_commit.as_deref().unwrap_or_default();
    if commit.is_empty() {
        for channel in with_hosts {
            findings.fault(Fault::RefMissing {
                channel: (*channel).clone(),
            });
        }
    } else if !is_channel_ref(commit) {
        findings.fault(Fault::RefIllegal {
            reference: commit.chars().take(80).collect(),
        });
    }
    for channel in with_hosts {
        let channel = channel.as_str();
        // The id of its rollout: channel, `@` and ref.
        if channel.len() + 1 + commit.len() > TEXT_BYTES_MAX {
            findings.fault(Fault::NameIllegal {
                at: "channels".to_owned(),
                name: channel.chars().take(80).collect(),
                reason: "is so long that its rollout would have an id of more than 1024 bytes",
            });
        }
    }
}
