//! A signed release of a made-up fleet, as CI makes one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::Utc;
use nixfleet_bus::Bus;
use nixfleet_harness::release::Signer;
use nixfleet_proto::fleet::{
    Channel, DisruptionBudget, Fleet as Source, FleetHost, Meta, PolicyWave, RolloutPolicy,
    SCHEMA_VERSION, Selector,
};
use nixfleet_proto::{ChannelName, ManifestHash, Minutes, OnHealthFailure};
use nixfleet_trust::{BuiltRelease, ReleaseUpload, Stamp, canonical_hash, pin};

use crate::fleet::{Fleet, SOAK_MINUTES, closure};

/// The only channel.
pub const CHANNEL: &str = "stable";
/// Commit of the release.
const COMMIT: &str = "4f1c2a9be07d";

/// A release and what the fold makes of it.
pub struct Release {
    /// The artifacts.
    pub built: BuiltRelease,
    /// What it pins.
    pub fleet: Fleet,
}

/// How a release rolls out.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Hosts of each wave.
    pub waves: Vec<usize>,
    /// Minutes of soak.
    pub soak: Minutes,
}

impl Shape {
    /// Waves as [`Fleet::of`] has them.
    pub fn of(hosts: usize) -> Self {
        let fleet = Fleet::of(hosts);
        let mut waves = vec![0; fleet.pinned.waves.len()];
        for host in &fleet.pinned.host_set {
            waves[host.wave_index as usize] += 1;
        }
        Self {
            waves,
            soak: Minutes::from_minutes(SOAK_MINUTES),
        }
    }
}

/// Resolves, checks, projects and signs a release.
///
/// # Errors
/// When the made-up fleet has faults.
pub fn build(shape: &Shape) -> Result<Release> {
    // No channel is listed under `waves`, so they are resolved from the selectors.
    let source = serde_json::to_vec(&source(shape))?;
    let built = Signer::development()?.release_of(
        &source,
        &Stamp {
            signed_at: Utc::now(),
            commit: Some(COMMIT.to_owned()),
        },
    )?;
    let channel = ChannelName::from(CHANNEL);
    let manifest = &built.bundle.rollouts[&channel].bytes;
    let manifest_hash = canonical_hash(manifest)?;
    let pinned = pin(manifest, &built.bundle.fleet.bytes, &manifest_hash)?;
    Ok(Release {
        fleet: Fleet {
            rollout_id: pinned.rollout_id,
            manifest_hash,
            pinned: pinned.pinned,
        },
        built,
    })
}

/// The body with which an operator publishes it.
///
/// # Errors
/// When it has no JSON form.
pub fn upload(release: &Release) -> Result<Bytes> {
    let upload = ReleaseUpload::from(&release.built.bundle);
    let body = serde_json::to_vec(&upload).context("encoding a release")?;
    Ok(Bytes::from(body))
}

/// Puts the artifacts into the object store.
///
/// # Errors
/// When the server refuses.
pub async fn store(bus: &Bus, release: &Release) -> Result<()> {
    let bundle = &release.built.bundle;
    for signed in bundle.rollouts.values().chain([&bundle.fleet]) {
        let hash: ManifestHash = canonical_hash(&signed.bytes)?;
        let bytes = Bytes::from(signed.bytes.clone());
        let stored = bus.manifests().put(&hash, bytes).await;
        stored.context("storing an artifact")?;
    }
    Ok(())
}

fn source(shape: &Shape) -> Source {
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
                closure_hash: Some(closure(2, number)),
                pubkey: None,
                pin: None,
            };
            hosts.insert(crate::fleet::hostname(number), host);
        }
    }
    let channel = Channel {
        rollout_policy: "waves".to_owned(),
        reconcile_interval_minutes: 5,
        freshness_window: 24 * 60,
        signing_interval_minutes: 60,
    };
    let tagged = |tag: String| Selector {
        tags: vec![tag],
        ..Selector::default()
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
        hosts,
        channels: [(ChannelName::from(CHANNEL), channel)].into(),
        rollout_policies: [("waves".to_owned(), policy)].into(),
        waves: BTreeMap::default(),
        edges: Vec::new(),
        channel_edges: Vec::new(),
        disruption_budgets: vec![budget(all), budget(tagged("third".to_owned()))],
        meta: Meta {
            schema_version: SCHEMA_VERSION,
            signed_at: None,
            ci_commit: Some(COMMIT.to_owned()),
            signature_algorithm: None,
        },
    }
}
