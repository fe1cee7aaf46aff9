//! Compares the streams with the configuration, and with what tables and archive cover.

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_service::Context;

use crate::config::Config;
use crate::task_context::TaskContext;

/// Pause before a failed operation is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits for the schema and the streams.
pub async fn prepare(shared: &TaskContext) -> anyhow::Result<()> {
    let covered = shared.store.read_covered_sequences(shared.bus.names());
    let waited = shared.bus.wait_for_layout(&covered).await;
    waited.context("comparing the streams")
}

/// Compares the streams until shutdown.
pub fn follow_layout(shared: &TaskContext, context: &Context<Config>) {
    let covered = shared.store.read_covered_sequences(shared.bus.names());
    let follow = shared.bus.follow_layout(covered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        follow.await.context("comparing the streams")
    });
}
