//! Creates the streams, at start and after a loss, above what the database covers.

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_service::Context;

use crate::config::Config;
use crate::task_context::TaskContext;

/// Pause before a failed operation is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits for the schema, then creates missing streams.
pub async fn prepare(shared: &TaskContext) -> anyhow::Result<()> {
    let covered = loop {
        match shared.store.covered_sequences(shared.bus.names()).await {
            Ok(covered) => break covered,
            Err(error) if error.retryable() || error.schema_missing() => {
                tracing::info!(%error, "waiting for the database");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => return Err(error).context("reading the cursors"),
        }
    };
    shared
        .bus
        .ensure_layout(&covered.into_iter().collect())
        .await
        .context("creating missing streams")
}

/// Recreates missing streams until shutdown.
pub fn maintain_layout(shared: &TaskContext, context: &Context<Config>) {
    let covered = shared.store.read_covered_sequences(shared.bus.names());
    let keep = shared
        .bus
        .maintain_layout(covered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("maintaining the streams")
    });
}
