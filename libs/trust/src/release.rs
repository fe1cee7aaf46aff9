//! Verified releases: a fleet with its rollout manifests.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixfleet_proto::fleet::{
    ArtifactRef, Fleet, ReleaseAnnouncement, RolloutAnnouncement, RolloutManifest,
};
use nixfleet_proto::{ChannelName, LAYOUT_VERSION, ManifestHash, RolloutId, Timestamp};

use crate::keys::ActiveKeys;
use crate::parallel::join;
use crate::release_bundle::{ReleaseBundle, Signed};
use crate::rollout_manifest::channels_with_hosts;
use crate::trust_file::TrustFile;
use crate::verify::{Freshness, Verified, VerifyError, verify};

/// A fleet and one rollout manifest per channel with hosts, all verified and consistent.
///
/// [`verify_release`] is the only constructor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    fleet: Verified<Fleet>,
    rollouts: BTreeMap<ChannelName, Verified<RolloutManifest>>,
    content: ReleaseContent,
    signatures: BTreeMap<ManifestHash, String>,
}

/// Content hashes of a release, independent of the time of signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseContent {
    /// Hash of the fleet without `meta`.
    pub fleet: ManifestHash,
    /// Id of each rollout manifest and its hash without `meta` and `fleetResolvedHash`.
    pub rollouts: BTreeMap<ChannelName, (RolloutId, ManifestHash)>,
}

/// The accepted release, for comparison in [`crate::admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedRelease {
    /// Time of signing.
    pub signed_at: Timestamp,
    /// Commit of the build.
    pub commit: Option<String>,
    /// Content hashes.
    pub content: ReleaseContent,
}

/// Rejection of an artifact of a release.
#[derive(Debug, thiserror::Error)]
#[error("{artifact} of the release is refused")]
pub struct ReleaseError {
    /// `the fleet` or `the rollout manifest of <channel>`.
    pub artifact: String,
    /// The reason.
    #[source]
    pub fault: ReleaseFault,
}

/// Reason to reject an artifact before admission.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ReleaseFault {
    #[error(transparent)]
    Verify(VerifyError),
    #[error("it is the manifest of {actual}, expected was {expected}")]
    RolloutId {
        expected: RolloutId,
        actual: RolloutId,
    },
    #[error("it names the fleet {actual}, the release has {expected}")]
    FleetHash {
        expected: ManifestHash,
        actual: ManifestHash,
    },
    #[error("it is missing")]
    Missing,
    #[error("the channel has no hosts in the fleet")]
    Unexpected,
}

impl ReleaseError {
    fn new(artifact: String, fault: ReleaseFault) -> Self {
        Self { artifact, fault }
    }

    /// Name for metrics: the failed verification step, or the inconsistency.
    pub fn name(&self) -> &'static str {
        match &self.fault {
            ReleaseFault::Verify(error) => error.name(),
            ReleaseFault::RolloutId { .. } => "RolloutIdMismatch",
            ReleaseFault::FleetHash { .. } => "FleetHashMismatch",
            ReleaseFault::Missing => "ManifestMissing",
            ReleaseFault::Unexpected => "ManifestUnexpected",
        }
    }
}

/// Verifies every artifact of a release, and their consistency: the rollout id and the fleet hash of each
/// manifest.
///
/// # Errors
/// The first rejected artifact: the fleet, then the manifests by channel.
///
/// Source: docs/manifests.md, verification.
pub fn verify_release(
    bundle: &ReleaseBundle,
    trust: &TrustFile,
    now: Timestamp,
    window: Duration,
) -> Result<Release, ReleaseError> {
    let keys = trust.release_keys(now);
    let freshness = Freshness { now, window };
    let Signed { bytes, signature } = &bundle.fleet;
    // In parallel: consistency is checked after both.
    let (fleet, manifests) = join(
        || verify(bytes, signature, &keys, freshness),
        || verify_manifests(bundle, &keys, freshness),
    );
    let fleet: Verified<Fleet> = fleet
        .map_err(|error| ReleaseError::new("the fleet".to_owned(), ReleaseFault::Verify(error)))?;
    let with_hosts = channels_with_hosts(fleet.payload());
    for channel in &with_hosts {
        if !bundle.rollouts.contains_key(*channel) {
            return Err(ReleaseError::new(named(channel), ReleaseFault::Missing));
        }
    }
    let mut rollouts = BTreeMap::new();
    for (channel, manifest) in manifests {
        let refuse = |fault| ReleaseError::new(named(channel), fault);
        if !with_hosts.contains(channel) {
            return Err(refuse(ReleaseFault::Unexpected));
        }
        let manifest = manifest.map_err(|error| refuse(ReleaseFault::Verify(error)))?;
        check_link(&fleet, channel, &manifest).map_err(refuse)?;
        rollouts.insert(channel.clone(), manifest);
    }
    Ok(assemble(bundle, fleet, rollouts))
}

/// Verifies the manifests in order, up to the first that fails.
fn verify_manifests<'b>(
    bundle: &'b ReleaseBundle,
    keys: &ActiveKeys,
    freshness: Freshness,
) -> Vec<(
    &'b ChannelName,
    Result<Verified<RolloutManifest>, VerifyError>,
)> {
    let mut verified = Vec::with_capacity(bundle.rollouts.len());
    for (channel, signed) in &bundle.rollouts {
        let manifest = verify(&signed.bytes, &signed.signature, keys, freshness);
        let is_last = manifest.is_err();
        verified.push((channel, manifest));
        if is_last {
            break;
        }
    }
    verified
}

fn named(channel: &ChannelName) -> String {
    format!("the rollout manifest of {channel}")
}

/// Checks that a manifest belongs to the channel and the fleet of this release.
fn check_link(
    fleet: &Verified<Fleet>,
    channel: &ChannelName,
    manifest: &Verified<RolloutManifest>,
) -> Result<(), ReleaseFault> {
    let commit = fleet
        .payload()
        .meta
        .ci_commit
        .as_deref()
        .unwrap_or_default();
    check_id(manifest.payload(), &RolloutId::new(channel, &commit.into()))?;
    let actual = &manifest.payload().fleet_resolved_hash;
    if actual != fleet.hash() {
        return Err(ReleaseFault::FleetHash {
            expected: fleet.hash().clone(),
            actual: actual.clone(),
        });
    }
    Ok(())
}

/// Verifies one rollout manifest and its rollout id, for agents.
///
/// # Errors
/// [`ReleaseFault::Verify`] or [`ReleaseFault::RolloutId`].
///
/// Source: docs/manifests.md, verification.
pub fn verify_manifest(
    signed: &Signed,
    keys: &ActiveKeys,
    freshness: Freshness,
    expected: &RolloutId,
) -> Result<Verified<RolloutManifest>, ReleaseFault> {
    let manifest: Verified<RolloutManifest> =
        verify(&signed.bytes, &signed.signature, keys, freshness).map_err(ReleaseFault::Verify)?;
    check_id(manifest.payload(), expected)?;
    Ok(manifest)
}

fn check_id(manifest: &RolloutManifest, expected: &RolloutId) -> Result<(), ReleaseFault> {
    let RolloutManifest {
        channel,
        channel_ref,
        ..
    } = manifest;
    // Compares both parts: a channel with an `@` must not match the ref of another channel.
    if *channel != expected.channel() || *channel_ref != expected.target_ref() {
        return Err(ReleaseFault::RolloutId {
            expected: expected.clone(),
            actual: manifest.rollout_id(),
        });
    }
    Ok(())
}

/// Combines the verified artifacts with signatures and content hashes.
fn assemble(
    bundle: &ReleaseBundle,
    fleet: Verified<Fleet>,
    rollouts: BTreeMap<ChannelName, Verified<RolloutManifest>>,
) -> Release {
    let mut signatures = BTreeMap::from([(
        fleet.hash().clone(),
        STANDARD.encode(&bundle.fleet.signature),
    )]);
    let mut contents = BTreeMap::new();
    for (channel, signed) in &bundle.rollouts {
        let manifest = &rollouts[channel];
        let id = manifest.payload().rollout_id();
        contents.insert(channel.clone(), (id, manifest.content_hash().clone()));
        signatures.insert(manifest.hash().clone(), STANDARD.encode(&signed.signature));
    }
    Release {
        content: ReleaseContent {
            fleet: fleet.content_hash().clone(),
            rollouts: contents,
        },
        fleet,
        rollouts,
        signatures,
    }
}

impl Release {
    /// The fleet.
    pub fn fleet(&self) -> &Verified<Fleet> {
        &self.fleet
    }

    /// The rollout manifests by channel.
    pub fn rollouts(&self) -> &BTreeMap<ChannelName, Verified<RolloutManifest>> {
        &self.rollouts
    }

    /// Extracts the fleet, and the rollout manifests with their hashes by channel, which no longer prove
    /// their verification.
    pub fn into_payloads(
        self,
    ) -> (
        Fleet,
        BTreeMap<ChannelName, (ManifestHash, RolloutManifest)>,
    ) {
        let rollouts = self.rollouts.into_iter();
        let rollouts = rollouts
            .map(|(channel, manifest)| {
                (channel, (manifest.hash().clone(), manifest.into_payload()))
            })
            .collect();
        (self.fleet.into_payload(), rollouts)
    }

    /// Time of signing of the fleet.
    pub fn signed_at(&self) -> Timestamp {
        self.fleet.signed_at()
    }

    /// Content hashes.
    pub fn content(&self) -> &ReleaseContent {
        &self.content
    }

    /// The form of this release for comparison with later ones.
    pub fn accepted(&self) -> AcceptedRelease {
        AcceptedRelease {
            signed_at: self.signed_at(),
            commit: self.fleet.payload().meta.ci_commit.clone(),
            content: self.content.clone(),
        }
    }

    /// The announcement of this release.
    pub fn announcement(&self) -> ReleaseAnnouncement {
        ReleaseAnnouncement {
            v: LAYOUT_VERSION,
            fleet: self.reference(self.fleet.hash(), self.fleet.signed_at()),
            rollouts: self
                .rollouts
                .iter()
                .map(|(channel, manifest)| {
                    let announcement = RolloutAnnouncement {
                        v: LAYOUT_VERSION,
                        rollout_id: manifest.payload().rollout_id(),
                        artifact: self.reference(manifest.hash(), manifest.signed_at()),
                    };
                    (channel.clone(), announcement)
                })
                .collect(),
        }
    }

    fn reference(&self, hash: &ManifestHash, signed_at: Timestamp) -> ArtifactRef {
        ArtifactRef {
            hash: hash.clone(),
            signature: self.signatures[hash].clone(),
            signed_at,
        }
    }

    /// The objects to store, by name; `bundle` is the verified one.
    pub fn objects<'b>(
        &'b self,
        bundle: &'b ReleaseBundle,
    ) -> impl Iterator<Item = (&'b ManifestHash, &'b [u8])> {
        let rollouts = self.rollouts.iter().filter_map(|(channel, manifest)| {
            Some((
                manifest.hash(),
                bundle.rollouts.get(channel)?.bytes.as_slice(),
            ))
        });
        std::iter::once((self.fleet.hash(), bundle.fleet.bytes.as_slice())).chain(rollouts)
    }
}

#[cfg(test)]
mod tests;
