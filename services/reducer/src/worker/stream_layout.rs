//! Creates the streams, at start and after a loss, above what tables and archive cover.

use std::sync::Arc;

use anyhow::Context as _;
use nixfleet_bus::{Bus, LayoutError, SequenceFloors};
use nixfleet_proto::subject::Names;
use nixfleet_service::Context;
use nixfleet_store::{ReadError, Store};

use crate::config::Config;

/// Creates missing streams above every position that the database covers.
///
/// # Errors
/// When the database or the bus fails.
pub async fn create_streams(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let floors = covered_positions(store, bus.names()).await?;
    bus.ensure_layout(&floors).await?;
    Ok(())
}

/// Positions that tables and archive cover.
async fn covered_positions(store: &Store, names: &Names) -> Result<SequenceFloors, ReadError> {
    store.schema_ready().await?;
    let floors = SequenceFloors::of_cursors(names, &store.cursors().await?);
    let archived = store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
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
pub fn keep_streams(context: &Context<Config>, bus: &Bus, store: &Arc<Store>) {
    let (store, names) = (Arc::clone(store), bus.names().clone());
    let covered_positions = move || {
        let (store, names) = (Arc::clone(&store), names.clone());
        async move {
            let floors = covered_positions(&store, &names).await;
            floors.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        }
    };
    let keep = bus.maintain_layout(covered_positions, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
}
