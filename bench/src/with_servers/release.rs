//! A signed release of a synthetic fleet, as CI builds one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::Utc;
use nixfleet_bus::Bus;
use nixfleet_harness::synthetic_release::{self, CHANNEL, Version, waves};
use nixfleet_proto::{ChannelName, ManifestHash, Minutes};
use nixfleet_trust::{BuiltRelease, ReleaseUpload, TrustFile, canonical_hash, pin, verify_release};

pub use nixfleet_harness::synthetic_release::Shape;

use crate::synthetic_fleet::{SOAK_MINUTES, SyntheticFleet};

const COMMIT: &str = "4f1c2a9be07d";

/// A release and what the fold makes of it.
pub struct Release {
    pub built: BuiltRelease,
    /// The fleet that the manifest pins.
    pub fleet: SyntheticFleet,
}

/// Waves as [`SyntheticFleet::of`] has them, and its soak.
pub fn shape_of(hosts: usize) -> Shape {
    Shape {
        waves: waves(hosts).into(),
        soak: Minutes::from_minutes(SOAK_MINUTES),
    }
}

/// Builds a release and pins it.
pub fn build(shape: &Shape) -> Result<Release> {
    let built = synthetic_release::build(
        shape,
        Version {
            number: 2,
            commit: COMMIT,
            signed_at: Utc::now(),
        },
    )?;
    let channel = ChannelName::from(CHANNEL);
    let manifest = &built.bundle.rollouts[&channel].bytes;
    let manifest_hash = canonical_hash(manifest)?;
    let pinned = pin(manifest, &built.bundle.fleet.bytes, &manifest_hash)?;
    Ok(Release {
        fleet: SyntheticFleet {
            rollout_id: pinned.rollout_id,
            manifest_hash,
            pinned: pinned.pinned,
        },
        built,
    })
}

/// The body with which an operator publishes it.
pub fn upload(release: &Release) -> Result<Bytes> {
    let upload = ReleaseUpload::from(&release.built.bundle);
    let body = serde_json::to_vec(&upload).context("encoding a release")?;
    Ok(Bytes::from(body))
}

/// Announces a stored release as the planner does, for services with this trust file.
pub async fn announce(bus: &Bus, release: &Release, trust_file: &Path) -> Result<()> {
    let trust = TrustFile::parse(&std::fs::read(trust_file)?)?;
    let bundle = &release.built.bundle;
    let verified = verify_release(bundle, &trust, Utc::now(), Duration::MAX)?;
    let announced = bus.manifests().announce(&verified.announcement(), 0).await;
    announced.context("announcing a release")?;
    Ok(())
}

/// Puts the artifacts into the object store.
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
