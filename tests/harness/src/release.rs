//! Signing releases as CI does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nixfleet_proto::Timestamp;
use nixfleet_trust::release_bundle::{FLEET_FILE, SIGNATURE_SUFFIX, rollout_file};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, BuiltRelease, ReleaseStamp, Signed, TrustFile, build_release};
use serde_json::Value;

/// The secret of the development release key. It needs no protection: only trust files in scratch
/// directories contain the key.
const SECRET: [u8; 32] = [42; 32];

/// A release key.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
}

impl Signer {
    /// The development key.
    ///
    /// # Errors
    /// Never, in practice: the secret is a constant.
    pub fn development() -> Result<Self> {
        let key = SigningKey::from_secret(Algorithm::Ed25519, &SECRET)?;
        Ok(Self { key })
    }

    /// Writes a trust file with this key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_trust(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("trust.json");
        let trust = TrustFile::of(self.key.public());
        std::fs::write(&path, serde_json::to_vec_pretty(&trust)?)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Writes the key as `nixfleet release` reads it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_key(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("release.key");
        std::fs::write(&path, serde_json::to_vec_pretty(&self.key.to_file())?)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Resolves, checks, projects and signs a fleet source.
    ///
    /// # Errors
    /// Every fault of the source.
    pub fn release(
        &self,
        source: &Value,
        commit: &str,
        signed_at: Timestamp,
    ) -> Result<BuiltRelease> {
        let stamp = ReleaseStamp {
            signed_at,
            commit: Some(commit.to_owned()),
        };
        self.release_of(source.to_string().as_bytes(), &stamp)
            .with_context(|| format!("building the release {commit}"))
    }

    /// Builds a release from a source that is encoded already, as large ones are.
    ///
    /// # Errors
    /// Every fault of the source.
    pub fn release_of(&self, source: &[u8], stamp: &ReleaseStamp) -> Result<BuiltRelease> {
        Ok(build_release(source, stamp, &self.key)?)
    }
}

/// Writes a release as a directory that planners poll; the fleet last, because it refers to the other
/// files.
///
/// # Errors
/// When a file cannot be written.
pub fn write_directory(release: &BuiltRelease, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir.join("rollouts"))?;
    for (channel, signed) in &release.bundle.rollouts {
        let rollout = release
            .rollouts
            .get(channel)
            .with_context(|| format!("channel {channel} has no rollout id"))?;
        write_signed(signed, &dir.join(rollout_file(rollout)))?;
    }
    write_signed(&release.bundle.fleet, &dir.join(FLEET_FILE))
}

fn write_signed(signed: &Signed, path: &Path) -> Result<()> {
    let signature = PathBuf::from(format!("{}{SIGNATURE_SUFFIX}", path.display()));
    for (path, bytes) in [
        (&signature, &signed.signature),
        (&path.to_owned(), &signed.bytes),
    ] {
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, path))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
