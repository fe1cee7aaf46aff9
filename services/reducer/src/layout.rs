//! The streams: made at start and brought back when they are gone, above everything that tables and
//! archive cover.

use std::sync::Arc;

use anyhow::Context as _;
use nixfleet_bus::{Bus, LayoutError, SequenceFloors};
use nixfleet_proto::subject::Names;
use nixfleet_service::Context;
use nixfleet_store::{ReadError, Store};

use crate::config::Config;

/// Creates what is missing on the bus, above everything the rows cover.
///
/// # Errors
/// Those of the database and of the layout.
pub async fn layout(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let floors = remembered(store, bus.names()).await?;
    bus.ensure_layout(&floors).await?;
    Ok(())
}

/// The positions that tables and archive cover.
async fn remembered(store: &Store, names: &Names) -> Result<SequenceFloors, ReadError> {
    store.schema_ready().await?;
    let floors = SequenceFloors::of_cursors(names, &store.cursors().await?);
    let archived = store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
}

/// True when [`layout`] may succeed later.
pub fn is_transient(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ReadError>()
        .is_some_and(ReadError::retryable)
        || matches!(
            error.downcast_ref::<LayoutError>(),
            Some(LayoutError::Unavailable { .. })
        )
}

/// Brings back streams that are gone, for as long as the process works.
pub fn maintain_layout(context: &Context<Config>, bus: &Bus, store: &Arc<Store>) {
    let (store, names) = (Arc::clone(store), bus.names().clone());
    let remembered = move || {
        let (store, names) = (Arc::clone(&store), names.clone());
        async move {
            let floors = remembered(&store, &names).await;
            floors.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        }
    };
    let keep = bus.maintain_layout(remembered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
}
