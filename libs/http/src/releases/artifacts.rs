//! A verified release with its bytes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::{Hostname, ManifestHash, RolloutId};
use nixfleet_trust::{AcceptedRelease, Newest, Release, ReleaseBundle, Signed, Verified};

use super::host_channels::HostChannels;

/// The hosts of a rollout manifest, by the hashes of their names: a set of a million takes 8 MB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedHosts(Arc<[u64]>);

impl ListedHosts {
    /// Of a verified manifest.
    pub fn of(manifest: &RolloutManifest) -> Self {
        let hosts = manifest.host_set.iter();
        let mut hashes: Vec<u64> = hosts.map(|host| hash_of(&host.hostname)).collect();
        hashes.sort_unstable();
        Self(hashes.into())
    }

    /// True for a listed host.
    pub fn contains(&self, hostname: &Hostname) -> bool {
        self.0.binary_search(&hash_of(hostname)).is_ok()
    }
}

fn hash_of(hostname: &Hostname) -> u64 {
    let mut hasher = DefaultHasher::new();
    hostname.hash(&mut hasher);
    hasher.finish()
}

/// A rollout manifest as received, and its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutArtifact {
    /// The manifest.
    pub artifact: Artifact,
    /// Whom it concerns.
    pub hosts: ListedHosts,
}

impl RolloutArtifact {
    pub(super) fn new(manifest: &Verified<RolloutManifest>, signed: Signed) -> Self {
        Self {
            artifact: Artifact::new(manifest.hash(), signed),
            hosts: ListedHosts::of(manifest.payload()),
        }
    }
}

/// An artifact as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Hash of its canonical form.
    pub hash: ManifestHash,
    /// The bytes.
    pub bytes: Bytes,
    /// The raw detached signature.
    pub signature: Bytes,
}

impl Artifact {
    pub(super) fn new(hash: &ManifestHash, signed: Signed) -> Self {
        Self {
            hash: hash.clone(),
            bytes: signed.bytes.into(),
            signature: signed.signature.into(),
        }
    }
}

/// A verified release and the bytes it was verified from.
#[derive(Debug)]
pub struct Artifacts {
    /// What was verified.
    pub release: Release,
    /// The fleet as received.
    pub fleet: Artifact,
    /// The rollout manifests as received.
    pub rollouts: BTreeMap<RolloutId, RolloutArtifact>,
    host_channels: OnceLock<HostChannels>,
}

impl Artifacts {
    /// Of a release and the bundle that it was verified from.
    pub fn new(release: Release, bundle: ReleaseBundle) -> Self {
        let fleet = Artifact::new(release.fleet().hash(), bundle.fleet);
        let rollouts = bundle
            .rollouts
            .into_iter()
            .filter_map(|(channel, signed)| {
                let manifest = release.rollouts().get(&channel)?;
                let id = manifest.payload().rollout_id();
                Some((id, RolloutArtifact::new(manifest, signed)))
            })
            .collect();
        Self {
            release,
            fleet,
            rollouts,
            host_channels: OnceLock::new(),
        }
    }

    /// The hosts by name. The first call takes long for a large fleet.
    pub fn host_channels(&self) -> &HostChannels {
        self.host_channels
            .get_or_init(|| HostChannels::of(self.fleet()))
    }

    /// What the fleet says.
    pub fn fleet(&self) -> &Fleet {
        self.release.fleet().payload()
    }

    /// All artifacts, the fleet first.
    pub fn all(&self) -> impl Iterator<Item = &Artifact> {
        let rollouts = self.rollouts.values();
        std::iter::once(&self.fleet).chain(rollouts.map(|rollout| &rollout.artifact))
    }
}

/// An announced release that was verified, whatever its age.
#[derive(Debug)]
pub struct Announced {
    /// Sequence of its announcement.
    pub seq: u64,
    /// What was announced.
    pub artifacts: Arc<Artifacts>,
}

/// The current release: verified, and newer than every release before it.
#[derive(Debug)]
pub struct Current {
    /// Sequence of its announcement.
    pub seq: u64,
    /// What was announced.
    pub artifacts: Arc<Artifacts>,
    newest: Newest,
}

impl Current {
    pub(super) fn new(announced: Announced, newest: Newest) -> Self {
        let Announced { seq, artifacts } = announced;
        Self {
            seq,
            artifacts,
            newest,
        }
    }

    /// The form for comparison with later releases.
    pub fn accepted(&self) -> &AcceptedRelease {
        self.newest.accepted()
    }
}

impl Deref for Current {
    type Target = Artifacts;

    fn deref(&self) -> &Artifacts {
        &self.artifacts
    }
}
