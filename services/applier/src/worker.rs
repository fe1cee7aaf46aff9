//! The worker of one partition: stand by, own the partition, apply its log, until shutdown.

mod apply_loop;
pub mod backoff;
mod checkpoint_restore;

use std::convert::Infallible;

use nixfleet_bus::{Lease, Leases};
use nixfleet_service::{CancellationToken, Readiness};

use crate::turn_writer::TurnWriter;
use apply_loop::{LoopEnd, Progress, apply_frames, unless_stopped};
use backoff::Backoff;

/// Applies the log of one partition whenever its lease is held, until shutdown.
pub async fn run(
    writer: TurnWriter,
    leases: Leases,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let key = writer.partition.to_string();
    let component = format!("partition-{key}");
    loop {
        // A standby is ready.
        readiness.set_ready(&component, Ok(()));
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
            never = request_stop(&lease, &shutdown, &stop) => match never {},
            () = own(&writer, &readiness, &component, &stop) => {}
        }
        lease.release().await;
    }
}

/// Stops the work when the lease is recalled or the process stops.
async fn request_stop(
    lease: &Lease,
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> Infallible {
    tokio::select! {
        () = lease.recalled() => {}
        () = shutdown.cancelled() => {}
    }
    stop.cancel();
    // The current turn is finished first.
    std::future::pending().await
}

/// Applies the log until stopped. A failure is reported, and the next attempt starts at the cursor
/// in the database, which is always correct.
async fn own(
    writer: &TurnWriter,
    readiness: &Readiness,
    component: &str,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(writer.config.retry_max());
    while !stop.is_cancelled() {
        let mut progress = Progress {
            readiness,
            component,
            backoff: &mut backoff,
        };
        match apply_frames(writer, &mut progress, stop).await {
            LoopEnd::CursorChanged | LoopEnd::Stopped => {}
            LoopEnd::Retry(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(partition = %writer.partition, error = reason, "applying failed; trying again");
                readiness.set_ready(component, Err(reason));
                unless_stopped(stop, backoff.sleep()).await;
            }
            LoopEnd::Halted(error) => {
                let reason = format!("{error:#}");
                tracing::error!(partition = %writer.partition, error = reason, "the partition stopped until an operator acts");
                readiness.set_ready(component, Err(reason));
                unless_stopped(stop, tokio::time::sleep(writer.config.check())).await;
            }
        }
    }
}
