//! Pinning: the terms of a rollout, from its manifest and its fleet.
//!
//! Source: docs/manifests.md, rollout manifest.

use std::sync::Arc;

use nixfleet_proto::fleet::{Fleet, RolloutManifest, SkippedHosts};
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::{ChannelName, ManifestHash, Pinned, PinnedManifest, json};

use crate::artifact::Artifact;
use crate::canonical_json::{CanonicalizeError, canonical_hash};
use crate::rollout_manifest::{ProjectError, policy_of, waves_of};
use crate::sorted_lookup::SortedLookup;

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
