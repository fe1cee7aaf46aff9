//! Whom releases must be signed by, and when.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_proto::Timestamp;
use nixfleet_trust::TrustFile;

/// Whom to believe.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The trust file, read for every release.
    pub file: PathBuf,
    /// Oldest release a poll accepts.
    pub window: Duration,
}

impl Trust {
    /// The trust file as it is now.
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

/// The time by which signatures are judged: the planner's clock.
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
