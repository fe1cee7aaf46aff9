//! Writes last-seen times, which partition owners publish, to the `hosts` table.

use std::time::Duration;

use nixfleet_bus::Bus;
use nixfleet_service::CancellationToken;
use nixfleet_store::Store;

/// All appliers share the reports.
const QUEUE_GROUP: &str = "applier";
/// Pause before the next subscription after a failure.
const RESUBSCRIBE_AFTER: Duration = Duration::from_secs(1);

/// Writes all reports until shutdown. Reports that cannot be written are counted and dropped: the
/// next heartbeat of each host repeats them.
pub async fn write_until_shutdown(
    bus: Bus,
    store: Store,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = write_reports(&bus, &store) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(RESUBSCRIBE_AFTER) => {}
        }
    }
}

async fn write_reports(bus: &Bus, store: &Store) {
    let mut liveness = match bus.subscribe_liveness(QUEUE_GROUP).await {
        Ok(liveness) => liveness,
        Err(error) => {
            tracing::warn!(%error, "cannot subscribe to last-seen times");
            return;
        }
    };
    while let Some(flush) = liveness.next().await {
        let count = flush.hosts.len() as u64;
        let result = match store.upsert_liveness(&flush.hosts).await {
            Ok(_) => "written",
            Err(error) => {
                tracing::warn!(error = %anyhow::Error::from(error), count, "last-seen times dropped");
                "dropped"
            }
        };
        metrics::counter!("nixfleet_liveness_reports_total", "result" => result).increment(count);
    }
}
