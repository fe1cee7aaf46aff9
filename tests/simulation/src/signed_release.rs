//! Releases of the simulated fleet, with real signatures, verified and pinned as the control plane does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use nixfleet_agent::release_check::SignedRelease;
use nixfleet_plan::release::ChannelManifest;
use nixfleet_proto::fleet::{
    Channel, ChannelEdge, DisruptionBudget, HostEdge, PolicyWave, RolloutPolicy, Selector,
};
use nixfleet_proto::{
    ChannelName, ClosureHash, Hostname, Minutes, OnHealthFailure, PinnedSet, RolloutId, Timestamp,
};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{
    Algorithm, BuiltRelease, ReleaseBundle, ReleaseStamp, TrustFile, build_release, pin_verified,
    verify_release,
};
use serde_json::{Value, json};

use crate::scenario::Shape;

/// The key all releases are signed with.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    SigningKey::from_secret(Algorithm::Ed25519, &[7; 32]).expect("any 32 bytes are a secret key")
});

/// A published release.
#[derive(Debug)]
pub struct Release {
    /// Its commit, the ref of all its rollouts.
    pub commit: String,
    /// The release as planners use it.
    pub plan: nixfleet_plan::Release,
    /// The pinned manifests of its rollouts, by hash.
    pub pinned: PinnedSet,
    /// The release as agents fetch it.
    pub signed: BTreeMap<RolloutId, SignedRelease>,
    /// Its rollouts by channel.
    pub rollouts: BTreeMap<ChannelName, RolloutId>,
    /// Time of signing.
    pub signed_at: Timestamp,
    /// The signed bytes.
    pub bundle: ReleaseBundle,
}

/// The content of a release.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseSpec<'a> {
    /// The fleet.
    pub shape: &'a Shape,
    /// The commit.
    pub commit: &'a str,
    /// The closure of each host, in the order of the shape; absent hosts take no part.
    pub closures: &'a [ClosureHash],
    /// Time of signing.
    pub signed_at: Timestamp,
    /// True: manifests stay fresh for days and budgets allow all hosts, so that everything can finish.
    pub lenient: bool,
}

impl Release {
    /// Builds, signs and verifies.
    ///
    /// # Panics
    /// When the shape does not make a valid fleet, which is a fault of the simulation.
    pub fn build(draft: ReleaseSpec<'_>) -> Self {
        let built = sign(draft, &KEY);
        let release = verify_release(&built.bundle, &trust(), draft.signed_at, Duration::MAX)
            .expect("what was just signed verifies");
        let fleet = Arc::new(release.fleet().clone());
        let mut manifests = BTreeMap::new();
        let mut pinned = BTreeMap::new();
        let mut signed = BTreeMap::new();
        for (channel, manifest) in release.rollouts() {
            let pins = pin_verified(manifest.payload(), fleet.payload())
                .expect("an admitted manifest pins something");
            let rollout_id = pins.rollout_id.clone();
            pinned.insert(manifest.hash().clone(), pins);
            let of_agents = SignedRelease {
                manifest: Arc::new(manifest.clone()),
                fleet: Arc::clone(&fleet),
            };
            signed.insert(rollout_id, of_agents);
            let of_plan = ChannelManifest {
                manifest: Arc::new(manifest.payload().clone()),
                hash: manifest.hash().clone(),
            };
            manifests.insert(channel.clone(), of_plan);
        }
        Self {
            commit: draft.commit.to_owned(),
            plan: nixfleet_plan::Release::new(Arc::new(fleet.payload().clone()), manifests),
            pinned,
            signed,
            rollouts: built.rollouts,
            signed_at: draft.signed_at,
            bundle: built.bundle,
        }
    }
}

/// Trust in the key of all releases.
pub fn trust() -> TrustFile {
    TrustFile::of(KEY.public())
}

/// Builds a release and signs it with a key.
///
/// # Panics
/// When the shape does not make a valid fleet, which is a fault of the simulation.
pub fn sign(draft: ReleaseSpec<'_>, key: &SigningKey) -> BuiltRelease {
    let source = source(draft).to_string();
    let stamp = ReleaseStamp {
        signed_at: draft.signed_at,
        commit: Some(draft.commit.to_owned()),
    };
    let built = build_release(source.as_bytes(), &stamp, key);
    built.unwrap_or_else(|error| panic!("the fleet is refused: {error:?}"))
}

/// The fleet as CI would write it.
fn source(draft: ReleaseSpec<'_>) -> Value {
    let shape = draft.shape;
    let channel_name = |index: usize| ChannelName::from(shape.channels[index].name);
    let host_name = |index: usize| shape.hosts[index].hostname();
    let hosts: BTreeMap<Hostname, Value> = shape
        .hosts
        .iter()
        .zip(draft.closures)
        .map(|(host, closure)| {
            let entry = json!({
                "system": "x86_64-linux",
                "tags": [host.tag],
                "channel": shape.channels[host.channel].name,
                "closureHash": closure,
                "pubkey": null,
            });
            (host.hostname(), entry)
        })
        .collect();
    let (mut channels, mut policies) = (BTreeMap::new(), BTreeMap::new());
    for index in 0..shape.channels.len() {
        let (channel, policy) = channel(shape, index, draft.lenient);
        policies.insert(channel.rollout_policy.clone(), policy);
        channels.insert(channel_name(index), channel);
    }
    let host_edges = shape.host_edges.iter().map(|edge| HostEdge {
        gated: host_name(edge.gated),
        gates: host_name(edge.gates),
        reason: None,
    });
    let channel_edges = shape.channel_edges.iter().map(|edge| ChannelEdge {
        gated: channel_name(edge.gated),
        gates: channel_name(edge.gates),
        reason: None,
    });
    let budgets = shape.budgets.iter().map(|budget| DisruptionBudget {
        selector: selector(budget.tag),
        max_in_flight: budget.max,
        max_in_flight_pct: budget.percent,
    });
    json!({
        "schemaVersion": 1,
        "hosts": hosts,
        "channels": channels,
        "rolloutPolicies": policies,
        "edges": host_edges.collect::<Vec<_>>(),
        "channelEdges": channel_edges.collect::<Vec<_>>(),
        "disruptionBudgets": budgets.collect::<Vec<_>>(),
    })
}

fn channel(shape: &Shape, index: usize, lenient: bool) -> (Channel, RolloutPolicy) {
    let of = &shape.channels[index];
    let channel = Channel {
        rollout_policy: format!("policy-{index}"),
        reconcile_interval_minutes: 30,
        freshness_window: if lenient { 10_080 } else { of.freshness },
        signing_interval_minutes: 30,
    };
    let waves = of.waves.iter().map(|wave| PolicyWave {
        selector: selector(wave.tag),
        soak_minutes: Some(Minutes::from_seconds(wave.soak_seconds)),
    });
    let policy = RolloutPolicy {
        strategy: "waves".to_owned(),
        waves: waves.collect(),
        health_gate: serde_json::Map::default(),
        on_health_failure: if of.rolls_back {
            OnHealthFailure::RollbackAndHalt
        } else {
            OnHealthFailure::Halt
        },
    };
    (channel, policy)
}

fn selector(tag: Option<&str>) -> Selector {
    Selector {
        tags: tag.map(str::to_owned).into_iter().collect(),
        all: tag.is_none(),
        ..Selector::default()
    }
}

/// Names of all closures of a release, without repetitions.
pub fn distinct(closures: &[ClosureHash]) -> BTreeSet<&ClosureHash> {
    closures.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Time;
    use crate::scenario::Caps;

    #[test]
    fn every_shape_makes_a_release_that_verifies() {
        for seed in 0..60 {
            let shape = Shape::of(seed, Caps::default());
            let closures: Vec<_> = (0..shape.hosts.len())
                .map(|_| ClosureHash::from("system-1"))
                .collect();
            let release = Release::build(ReleaseSpec {
                shape: &shape,
                commit: "c1",
                closures: &closures,
                signed_at: Time::ZERO.wall(0),
                lenient: false,
            });
            assert_eq!(release.rollouts.len(), release.pinned.len());
            let pinned: usize = release
                .pinned
                .values()
                .map(|p| p.pinned.host_set.len())
                .sum();
            assert_eq!(pinned, shape.hosts.len());
        }
    }
}
