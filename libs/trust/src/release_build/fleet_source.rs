//! Reads and resolves a fleet source.

use std::collections::BTreeMap;

use nixfleet_proto::fleet::{
    Channel, ChannelEdge, DisruptionBudget, Fleet, FleetHost, HostEdge, Meta, RolloutPolicy,
    SCHEMA_VERSION, Wave,
};
use nixfleet_proto::{ChannelName, Hostname, Minutes, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::admission::{Fault, Findings, Notice};
use crate::artifact::Artifact;
use crate::canonical_json::canonicalize;
use crate::illegal_hostnames::illegal_hostnames;
use crate::selector_matcher::Matcher;

use super::source_keys::{self, CarriedValues};

/// An unresolved fleet: like [`Fleet`], with more optional fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(default = "schema_version")]
    schema_version: u64,
    hosts: BTreeMap<Hostname, SourceHost>,
    channels: BTreeMap<ChannelName, Channel>,
    #[serde(default)]
    rollout_policies: BTreeMap<String, RolloutPolicy>,
    /// Waves of channels that are resolved already.
    #[serde(default)]
    waves: BTreeMap<ChannelName, Vec<Wave>>,
    #[serde(default)]
    edges: Vec<HostEdge>,
    #[serde(default)]
    channel_edges: Vec<ChannelEdge>,
    #[serde(default)]
    disruption_budgets: Vec<DisruptionBudget>,
    #[serde(default)]
    meta: Option<SourceMeta>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceHost {
    system: String,
    #[serde(default)]
    tags: Vec<String>,
    channel: ChannelName,
    closure_hash: Option<nixfleet_proto::ClosureHash>,
    pubkey: Option<String>,
    #[serde(default)]
    pin: Option<nixfleet_proto::fleet::Pin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceMeta {
    #[serde(default)]
    ci_commit: Option<String>,
}

fn schema_version() -> u64 {
    SCHEMA_VERSION
}

/// Reads and resolves a source; `None`, with a fault, when it is not a fleet.
pub(super) fn read(source: &[u8], findings: &mut Findings) -> Option<(Fleet, CarriedValues)> {
    let canonical = match canonicalize(source) {
        Ok(canonical) => canonical,
        Err(error) => {
            findings.fault(Fault::Unreadable {
                message: error.to_string(),
            });
            return None;
        }
    };
    let mut carried = CarriedValues::default();
    match serde_json::from_slice::<Value>(&canonical) {
        Ok(document) => {
            carried = source_keys::check(&document, findings);
            check_selectors(&document, findings);
            let hostnames = illegal_hostnames(&canonical);
            if !hostnames.is_empty() {
                hostnames
                    .into_iter()
                    .for_each(|fault| findings.fault(Fault::Hostname(fault)));
                return None;
            }
        }
        Err(error) => findings.fault(Fault::Unreadable {
            message: error.to_string(),
        }),
    }
    match serde_json::from_slice::<Source>(&canonical) {
        Ok(source) => Some((resolve(source), carried)),
        Err(error) => {
            findings.fault(Fault::Unreadable {
                message: error.to_string(),
            });
            None
        }
    }
}

/// Checks every selector of a document: `disruptionBudgets[].selector` and
/// `rolloutPolicies.*.waves[].selector`.
fn check_selectors(document: &Value, findings: &mut Findings) {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    for (index, budget) in list(&document["disruptionBudgets"]).iter().enumerate() {
        let at = format!("disruptionBudgets[{index}].selector");
        check_selector(&budget["selector"], &at, document, findings);
    }
    for (name, policy) in document["rolloutPolicies"]
        .as_object()
        .into_iter()
        .flatten()
    {
        for (index, wave) in list(&policy["waves"]).iter().enumerate() {
            let at = format!("rolloutPolicies.{name}.waves[{index}].selector");
            check_selector(&wave["selector"], &at, document, findings);
        }
    }
}

/// Finds names of unknown hosts and channels.
fn check_selector(selector: &Value, at: &str, document: &Value, findings: &mut Findings) {
    for (key, value) in selector.as_object().into_iter().flatten() {
        match key.as_str() {
            "hosts" => {
                for hostname in value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    match hostname.parse() {
                        Ok(_) if document["hosts"].get(hostname).is_some() => {}
                        Ok(hostname) => findings.fault(Fault::UnknownHost {
                            at: format!("{at}.hosts"),
                            hostname,
                        }),
                        Err(fault) => findings.fault(Fault::Hostname(fault)),
                    }
                }
            }
            "channel" => {
                if let Some(channel) = value.as_str()
                    && document["channels"].get(channel).is_none()
                {
                    findings.fault(Fault::UnknownChannel {
                        at: format!("{at}.channel"),
                        channel: channel.into(),
                    });
                }
            }
            "and" => {
                for (index, part) in value.as_array().into_iter().flatten().enumerate() {
                    check_selector(part, &format!("{at}.and[{index}]"), document, findings);
                }
            }
            "not" => check_selector(value, &format!("{at}.not"), document, findings),
            _ => {}
        }
    }
}

fn resolve(source: Source) -> Fleet {
    let hosts = source
        .hosts
        .into_iter()
        .map(|(hostname, host)| {
            let host = FleetHost {
                system: host.system,
                tags: host.tags,
                channel: host.channel,
                closure_hash: host.closure_hash,
                pubkey: host.pubkey,
                pin: host.pin.map(Box::new),
            };
            (hostname, host)
        })
        .collect();
    let mut fleet = Fleet {
        schema_version: source.schema_version,
        hosts,
        channels: source.channels,
        rollout_policies: source.rollout_policies,
        waves: source.waves,
        edges: source.edges,
        channel_edges: source.channel_edges,
        disruption_budgets: source.disruption_budgets,
        meta: Meta {
            schema_version: SCHEMA_VERSION,
            signed_at: None,
            ci_commit: source.meta.and_then(|meta| meta.ci_commit),
            signature_algorithm: None,
        },
    };
    let mut normalised = fleet.clone();
    normalised.normalise();
    for channel in normalised.channels.keys() {
        if !fleet.waves.contains_key(channel) {
            let waves = waves_of(&normalised, channel);
            fleet.waves.insert(channel.clone(), waves);
        }
    }
    fleet
}

/// Assigns each host with a closure to the first wave whose selector matches.
fn waves_of(fleet: &Fleet, channel: &ChannelName) -> Vec<Wave> {
    let policy = fleet
        .channels
        .get(channel)
        .and_then(|channel| fleet.rollout_policies.get(&channel.rollout_policy));
    let Some(policy) = policy else {
        return Vec::new();
    };
    let matchers: Vec<Matcher<'_>> = policy
        .waves
        .iter()
        .map(|wave| Matcher::new(&wave.selector))
        .collect();
    let mut waves: Vec<Wave> = policy
        .waves
        .iter()
        .map(|wave| Wave {
            hosts: Vec::new(),
            soak_minutes: wave.soak_minutes.unwrap_or(Minutes::ZERO),
        })
        .collect();
    for (hostname, host) in &fleet.hosts {
        if host.channel != *channel || host.closure_hash.is_none() {
            continue;
        }
        let first = matchers
            .iter()
            .position(|matcher| matcher.matches(hostname, host));
        if let Some(wave) = first.and_then(|index| waves.get_mut(index)) {
            wave.hosts.push(hostname.clone());
        }
    }
    waves
}

/// Removes pins that expired before the time of signing.
pub(super) fn drop_expired_pins(fleet: &mut Fleet, signed_at: Timestamp, findings: &mut Findings) {
    for (hostname, host) in &mut fleet.hosts {
        let expired = host
            .pin
            .as_ref()
            .and_then(|pin| pin.expires_at)
            .is_some_and(|expires_at| expires_at <= signed_at);
        if expired {
            host.pin = None;
            findings.notice(Notice::PinExpired {
                hostname: hostname.clone(),
            });
        }
    }
}
