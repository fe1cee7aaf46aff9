//! Sources of signed releases, which are not verified yet.

mod directory;
mod error;
mod http;
mod unverified_manifests;

use nixfleet_trust::ReleaseBundle;

use crate::config::SourceConfig;
use directory::Directory;
use http::Http;

pub use error::SourceError;

pub enum Source {
    Directory(Directory),
    Http(Box<Http>),
}

impl Source {
    /// Opens the configured source; `None` when releases only come through the gateway.
    ///
    /// # Errors
    /// When a configured file cannot be used.
    pub fn new(config: &SourceConfig) -> anyhow::Result<Option<Self>> {
        if let Some(path) = &config.directory {
            let directory = Directory::new(path.clone(), config.artifact_max_bytes);
            return Ok(Some(Self::Directory(directory)));
        }
        if let Some(url) = &config.url {
            return Ok(Some(Self::Http(Box::new(Http::new(url, config)?))));
        }
        Ok(None)
    }

    /// Fetches the release; `None` when it has not changed.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn fetch(&mut self) -> Result<Option<ReleaseBundle>, SourceError> {
        match self {
            Self::Directory(directory) => directory.fetch().await.map(Some),
            Self::Http(http) => http.fetch().await,
        }
    }

    /// Makes the next fetch unconditional, as the last fetched release was not accepted.
    pub fn reset(&mut self) {
        match self {
            Self::Directory(_) => {}
            Self::Http(http) => http.reset(),
        }
    }
}
