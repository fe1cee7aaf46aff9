//! Creates the streams, at start and after a loss, above what tables and archive cover.

use anyhow::Context as _;
use nixfleet_bus::{Bus, LayoutError};
use nixfleet_service::Context;
use nixfleet_store::{ReadError, Store};

use crate::config::Config;

/// Creates missing streams above every position that the database covers.
///
/// # Errors
/// When the database or the bus fails.
pub async fn create_streams(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let covered = store.covered_sequences(bus.names()).await?;
    bus.ensure_layout(&covered.into_iter().collect()).await?;
    Ok(())
}

/// True when a retry of [`create_streams`] may succeed.
pub fn is_transient(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ReadError>()
        .is_some_and(ReadError::retryable)
        || matches!(
            error.downcast_ref::<LayoutError>(),
            Some(LayoutError::Unavailable { .. })
        )
}

/// Recreates missing streams until shutdown.
pub fn keep_streams(context: &Context<Config>, bus: &Bus, store: &Store) {
    let covered = store.read_covered_sequences(bus.names());
    let keep = bus.maintain_layout(covered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
}
