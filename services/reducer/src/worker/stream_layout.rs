//! Compares the streams with the configuration, and with what tables and archive cover.

use anyhow::Context as _;
use nixfleet_bus::{Bus, LayoutError};
use nixfleet_service::Context;
use nixfleet_store::{ReadError, Store};

use crate::config::Config;

/// Compares the streams once.
///
/// # Errors
/// When they differ or are missing, or a server fails.
pub async fn compare_streams(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let covered = store.covered_sequences(bus.names()).await?;
    bus.compare_layout(&covered.into_iter().collect()).await?;
    Ok(())
}

/// True when a retry of [`compare_streams`] may succeed.
pub fn is_transient(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ReadError>()
        .is_some_and(ReadError::retryable)
        || matches!(
            error.downcast_ref::<LayoutError>(),
            Some(LayoutError::Unavailable { .. } | LayoutError::Missing { .. })
        )
}

/// Compares the streams until shutdown.
pub fn follow_streams(context: &Context<Config>, bus: &Bus, store: &Store) {
    let covered = store.read_covered_sequences(bus.names());
    let follow = bus.follow_layout(covered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        follow.await.context("comparing the streams")
    });
}
