//! Creates the streams, at start and after a loss, above what the database covers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::SequenceFloors;
use nixfleet_service::Context;

use crate::config::Config;
use crate::task_context::TaskContext;

/// Pause before a failed operation is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits for the schema, then creates missing streams.
pub async fn prepare(shared: &TaskContext) -> anyhow::Result<()> {
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
        .context("creating missing streams")
}

/// Positions that tables and archive cover.
async fn floors(shared: &TaskContext) -> Result<SequenceFloors, nixfleet_store::ReadError> {
    shared.store.schema_ready().await?;
    let names = shared.bus.names();
    let floors = SequenceFloors::of_cursors(names, &shared.store.cursors().await?);
    let archived = shared.store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
}

/// Recreates missing streams until shutdown.
pub fn maintain_layout(shared: &Arc<TaskContext>, context: &Context<Config>) {
    let reading = Arc::clone(shared);
    let covered_positions = move || {
        let shared = Arc::clone(&reading);
        async move {
            let floors = floors(&shared).await;
            floors.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        }
    };
    let keep = shared
        .bus
        .maintain_layout(covered_positions, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("maintaining the streams")
    });
}
