//! Trusted keys and the freshness window of releases.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_proto::Timestamp;
use nixfleet_trust::TrustFile;

/// Trust settings of releases.
#[derive(Debug, Clone)]
pub struct TrustSettings {
    /// Path of the trust file, read for every release.
    pub file: PathBuf,
    pub window: Duration,
}

impl TrustSettings {
    /// Reads the trust file.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub async fn read(&self) -> anyhow::Result<TrustFile> {
        let path = self.file.display();
        let bytes = tokio::fs::read(&self.file).await;
        let bytes = bytes.with_context(|| format!("reading {path}"))?;
        TrustFile::parse(&bytes).with_context(|| format!("parsing {path}"))
    }
}

/// The current time, against which signatures are checked.
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
