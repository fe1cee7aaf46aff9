//! Signed releases of a synthetic fleet of any size: one channel, names and closures of realistic length,
//! waves and budgets that never delay a host.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nixfleet_proto::fleet::{
    Channel, DisruptionBudget, Fleet as Source, FleetHost, Meta, PolicyWave, RolloutPolicy,
    SCHEMA_VERSION, Selector,
};
use nixfleet_proto::{ChannelName, ClosureHash, Hostname, Minutes, OnHealthFailure, Timestamp};
use nixfleet_trust::{BuiltRelease, ReleaseStamp};

use crate::release::Signer;

/// The only channel.
pub const CHANNEL: &str = "stable";

/// Name of a host, which [`host_number`] reads.
pub fn hostname(number: usize) -> Hostname {
    let name = format!("host-{number:07}.example");
    name.parse().expect("the name consists of two labels")
}

/// The number of a host of the synthetic fleet.
///
/// # Errors
/// When it is none.
pub fn host_number(hostname: &Hostname) -> Result<usize> {
    let name = hostname.as_str();
    let digits = name
        .strip_prefix("host-")
        .and_then(|rest| rest.strip_suffix(".example"));
    digits
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("{name} is no host of the synthetic fleet"))
}

/// Base name of a store path of the usual length, of the given release of a host.
pub fn closure(release: u32, number: usize) -> ClosureHash {
    let digits = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(release);
    ClosureHash::from(format!(
        "{digits:016x}{:016x}-nixos-system-host-{number:07}-26.11",
        digits.rotate_left(29)
    ))
}

/// Hosts of each of four waves; the last one has half of them.
pub fn waves(hosts: usize) -> [usize; 4] {
    let first = (hosts / 100).max(1);
    let (second, third) = (hosts * 9 / 100, hosts * 40 / 100);
    [first, second, third, hosts - first - second - third]
}

/// Waves and soak of a release.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Hosts of each wave.
    pub waves: Vec<usize>,
    /// Minutes of soak.
    pub soak: Minutes,
}

/// Number, commit and signing time of a release.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Number that its closures have.
    pub number: u32,
    /// Commit, which is the ref of its rollout.
    pub commit: &'a str,
    /// Signing time.
    pub signed_at: Timestamp,
}

/// Resolves, checks, projects and signs a release.
///
/// # Errors
/// When the synthetic fleet has faults.
pub fn build(shape: &Shape, version: Version<'_>) -> Result<BuiltRelease> {
    // No channel is listed under `waves`, so they are resolved from the selectors.
    let source = serde_json::to_vec(&source(shape, version))?;
    let stamp = ReleaseStamp {
        signed_at: version.signed_at,
        commit: Some(version.commit.to_owned()),
    };
    Signer::development()?.release_of(&source, &stamp)
}

fn source(shape: &Shape, version: Version<'_>) -> Source {
    let channel = Channel {
        rollout_policy: "waves".to_owned(),
        reconcile_interval_minutes: 5,
        freshness_window: 24 * 60,
        signing_interval_minutes: 60,
    };
    let all = Selector {
        all: true,
        ..Selector::default()
    };
    let budget = |selector| DisruptionBudget {
        selector,
        max_in_flight: None,
        max_in_flight_pct: Some(100),
    };
    let waves = (0..shape.waves.len()).map(|wave| PolicyWave {
        selector: tagged(format!("wave-{wave}")),
        soak_minutes: Some(shape.soak),
    });
    let policy = RolloutPolicy {
        strategy: "waves".to_owned(),
        waves: waves.collect(),
        health_gate: serde_json::Map::default(),
        on_health_failure: OnHealthFailure::RollbackAndHalt,
    };
    Source {
        schema_version: SCHEMA_VERSION,
        hosts: hosts(shape, version.number),
        channels: [(ChannelName::from(CHANNEL), channel)].into(),
        rollout_policies: [("waves".to_owned(), policy)].into(),
        waves: BTreeMap::default(),
        edges: Vec::new(),
        channel_edges: Vec::new(),
        disruption_budgets: vec![budget(all), budget(tagged("third".to_owned()))],
        meta: Meta {
            schema_version: SCHEMA_VERSION,
            signed_at: None,
            ci_commit: Some(version.commit.to_owned()),
            signature_algorithm: None,
        },
    }
}

fn hosts(shape: &Shape, release: u32) -> BTreeMap<Hostname, FleetHost> {
    let mut hosts = BTreeMap::new();
    for (wave, count) in shape.waves.iter().enumerate() {
        for _ in 0..*count {
            let number = hosts.len();
            let mut tags = vec![format!("wave-{wave}")];
            tags.extend(number.is_multiple_of(3).then(|| "third".to_owned()));
            let host = FleetHost {
                system: "x86_64-linux".to_owned(),
                tags,
                channel: ChannelName::from(CHANNEL),
                closure_hash: Some(closure(release, number)),
                pubkey: None,
                pin: None,
            };
            hosts.insert(hostname(number), host);
        }
    }
    hosts
}

fn tagged(tag: String) -> Selector {
    Selector {
        tags: vec![tag],
        ..Selector::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_contain_their_number() {
        assert_eq!(host_number(&hostname(47)).unwrap(), 47);
        assert!(host_number(&Hostname::from("web-1")).is_err());
    }

    #[test]
    fn waves_contain_every_host() {
        for hosts in [10, 99, 100, 10_000, 1_000_000] {
            assert_eq!(waves(hosts).iter().sum::<usize>(), hosts);
        }
    }
}
