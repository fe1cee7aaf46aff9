//! Last-seen times of hosts, from the partition owners to the `hosts` table.

use std::time::Duration;

use nixfleet_bus::Bus;
use nixfleet_service::CancellationToken;
use nixfleet_store::Store;

/// All appliers share the flushes.
const QUEUE_GROUP: &str = "applier";
/// Pause before subscribing again after the bus went away.
const RESUBSCRIBE: Duration = Duration::from_secs(1);

/// Writes every flush until shutdown. A flush that cannot be written is counted and dropped: the
/// next heartbeat of each host says it again.
pub async fn follow(bus: Bus, store: Store, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = write_flushes(&bus, &store) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(RESUBSCRIBE) => {}
        }
    }
}

async fn write_flushes(bus: &Bus, store: &Store) {
    let mut liveness = match bus.subscribe_liveness(QUEUE_GROUP).await {
        Ok(liveness) => liveness,
        Err(error) => {
            tracing::warn!(%error, "cannot follow liveness");
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
