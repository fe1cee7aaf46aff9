//! The streams: made at start and brought back when they are gone, above everything that the database
//! remembers of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::SequenceFloors;
use nixfleet_service::Context;

use crate::config::Config;
use crate::shared::Shared;

/// Pause before something that failed is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits for the tables, then makes sure of the streams.
pub async fn prepare(shared: &Shared) -> anyhow::Result<()> {
    let floors = loop {
        match floors(shared).await {
            Ok(floors) => break floors,
            Err(error) if error.retryable() || error.schema_missing() => {
                tracing::info!(%error, "waiting for the database");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => return Err(error).context("reading the cursors"),
        }
    };
    shared
        .bus
        .ensure_layout(&floors)
        .await
        .context("checking the streams")
}

/// Everything the database remembers of the streams.
async fn floors(shared: &Shared) -> Result<SequenceFloors, nixfleet_store::ReadError> {
    shared.store.schema_ready().await?;
    let names = shared.bus.names();
    let floors = SequenceFloors::of_cursors(names, &shared.store.cursors().await?);
    let archived = shared.store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
}

/// Brings back streams that are gone, for as long as the process works.
pub fn maintain_layout(shared: &Arc<Shared>, context: &Context<Config>) {
    let reading = Arc::clone(shared);
    let remembered = move || {
        let shared = Arc::clone(&reading);
        async move {
            let floors = floors(&shared).await;
            floors.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        }
    };
    let keep = shared
        .bus
        .maintain_layout(remembered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
}
