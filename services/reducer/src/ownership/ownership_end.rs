//! Reasons for the end of an ownership.

/// Why an ownership ended.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipEnd {
    /// The process stops or the lease is lost: another instance may own the partition already.
    #[error("the lease is lost or the process stops")]
    Released,
    /// Another owner published: the state in this process is void.
    #[error("another owner published")]
    Fenced,
    /// A server did not answer; a retry may succeed.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// Logs, rows or manifests contradict each other; an operator has to act.
    #[error("{0:#}")]
    Halted(anyhow::Error),
}

impl OwnershipEnd {
    /// Value of the metric label `reason`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Fenced => "fenced",
            Self::Failed(_) => "failed",
            Self::Halted(_) => "halted",
        }
    }

    /// Wraps an error that an operator has to look at.
    pub fn halted(error: impl Into<anyhow::Error>) -> Self {
        Self::Halted(error.into())
    }

    /// Wraps an error that a retry may resolve.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// Adds context to a contradiction; other ends are returned unchanged.
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
