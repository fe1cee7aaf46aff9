//! Why a source gives no release.

use nixfleet_trust::bundle;

/// Why there is no release to look at.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no fleet at the source.
    #[error("there is no {} at the source", bundle::FLEET_FILE)]
    Nothing,
    /// An artifact is over the limit.
    #[error("{artifact} is over the limit of {max} bytes")]
    TooLarge {
        /// Its path.
        artifact: String,
        /// Largest size.
        max: usize,
    },
    /// The source does not answer as it should.
    #[error("{artifact} cannot be fetched")]
    Unavailable {
        /// Its path.
        artifact: String,
        /// Why.
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
