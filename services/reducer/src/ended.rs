//! Why an ownership ended.

/// Every way out of an ownership except an orderly stop.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The process stops or the lease is gone: somebody else may own the partition already.
    #[error("the lease is gone or the process stops")]
    Released,
    /// Another owner published: all state here is void.
    #[error("another owner published")]
    Fenced,
    /// Something did not answer; the same again may succeed.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// Logs, rows or manifests contradict each other; a person has to act.
    #[error("{0:#}")]
    Halted(anyhow::Error),
}

impl Ended {
    /// Name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Fenced => "fenced",
            Self::Failed(_) => "failed",
            Self::Halted(_) => "halted",
        }
    }

    /// Something that a person has to look at.
    pub fn halted(error: impl Into<anyhow::Error>) -> Self {
        Self::Halted(error.into())
    }

    /// Something that may go away.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// Says where a contradiction was found.
    pub(crate) fn context_if_halted(
        self,
        doing: impl std::fmt::Display + Send + Sync + 'static,
    ) -> Self {
        match self {
            Self::Halted(error) => Self::Halted(error.context(doing)),
            ended @ (Self::Released | Self::Fenced | Self::Failed(_)) => ended,
        }
    }
}
