//! The life of one partition: stand by, own, read, apply, until the lease is lost or the process
//! stops.

use std::convert::Infallible;

use nixfleet_bus::{Lease, Leases};
use nixfleet_service::{CancellationToken, Readiness};

use crate::follow::{Again, Progress, follow, unless};
use crate::retry::Pauses;
use crate::turn::Turns;

/// Works on one partition whenever its lease can be had, until shutdown.
pub async fn run(
    turns: Turns,
    leases: Leases,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let key = turns.partition.to_string();
    let part = format!("partition-{key}");
    loop {
        // A standby is as ready as it can be.
        readiness.set_ready(&part, Ok(()));
        let lease = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            lease = leases.acquire(&key) => lease,
        };
        tracing::info!(partition = key, "owns the partition");
        let stop = CancellationToken::new();
        tokio::select! {
            () = lease.lost() => {
                tracing::warn!(partition = key, "lost the partition");
            }
            never = ask_to_stop(&lease, &shutdown, &stop) => match never {},
            () = own(&turns, &readiness, &part, &stop) => {}
        }
        lease.release().await;
    }
}

/// Ends the work in good order when the lease is asked back or the process stops.
async fn ask_to_stop(
    lease: &Lease,
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> Infallible {
    tokio::select! {
        () = lease.recalled() => {}
        () = shutdown.cancelled() => {}
    }
    stop.cancel();
    // The turn that is being written ends by itself.
    std::future::pending().await
}

/// Follows the log until it shall stop. Whatever goes wrong is reported and tried again from the
/// cursor in the database: the tables are right at every moment, so beginning again is always safe.
async fn own(turns: &Turns, readiness: &Readiness, part: &str, stop: &CancellationToken) {
    let mut pauses = Pauses::new(turns.config.retry_max());
    while !stop.is_cancelled() {
        let mut progress = Progress {
            readiness,
            part,
            pauses: &mut pauses,
        };
        match follow(turns, &mut progress, stop).await {
            Again::Reload | Again::Never => {}
            Again::Later(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(partition = %turns.partition, error = reason, "trying again");
                readiness.set_ready(part, Err(reason));
                unless(stop, pauses.sleep()).await;
            }
            Again::Stopped(error) => {
                let reason = format!("{error:#}");
                tracing::error!(partition = %turns.partition, error = reason, "partition stopped");
                readiness.set_ready(part, Err(reason));
                unless(stop, tokio::time::sleep(turns.config.check())).await;
            }
        }
    }
}
