//! Errors of a release source.

use nixfleet_trust::release_bundle;

/// Why a source gave no release.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source has no fleet.
    #[error("there is no {} at the source", release_bundle::FLEET_FILE)]
    Nothing,
    /// An artifact exceeds the size limit.
    #[error("{artifact} is over the limit of {max} bytes")]
    TooLarge { artifact: String, max: usize },
    #[error("{artifact} cannot be fetched")]
    Unavailable {
        artifact: String,
        #[source]
        source: anyhow::Error,
    },
}

impl SourceError {
    pub(super) fn unavailable(artifact: &str, source: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable {
            artifact: artifact.to_owned(),
            source: source.into(),
        }
    }
}
