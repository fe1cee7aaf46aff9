//! The worker of one partition: stand by, own the partition, start over.

mod checkpoint_writer;
mod heartbeat_responder;
mod live_loop;
mod log_usage;
mod publisher;
pub mod stream_layout;
mod takeover_driver;
mod turn_frames;

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::{Bus, Lease, Leases};
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{OwnershipEnd, Readiness};
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;
use nixfleet_trust::ConsoleKeys;

use crate::config::Config;
use crate::manifests::ManifestReader;
use crate::telemetry;

use live_loop::{LiveLoop, Progress};
use log_usage::PartitionLogUsage;
use stream_layout::{compare_streams, is_transient};
use takeover_driver::TakeoverDriver;

/// Pause after a failure, so that an unavailable server is not flooded with attempts.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

pub struct Worker {
    pub bus: Bus,
    pub store: Arc<Store>,
    pub manifests: ManifestReader,
    /// Keys of the consoles, which sign commands.
    pub keys: Arc<ConsoleKeys>,
    pub leases: Leases,
    pub partition: Partition,
    pub context: Context<Config>,
}

impl Worker {
    /// Name of the worker in health reports.
    pub fn component(partition: Partition) -> String {
        format!("partition-{partition}")
    }

    /// Runs until the process stops.
    pub async fn run(self) -> anyhow::Result<()> {
        let stop = &self.context.shutdown;
        let key = self.partition.to_string();
        let mut check_streams = false;
        let mut readiness = Readiness::default();
        loop {
            self.set_ready(readiness.check());
            let lease = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lease = self.leases.acquire(&key) => lease,
            };
            let ended = self.own(&lease, check_streams, &mut readiness).await;
            readiness.ownership_ended(&ended);
            check_streams = matches!(ended, OwnershipEnd::Failed(_));
            telemetry::set_owned(self.partition, false);
            self.manifests.set_owned(self.partition, false);
            telemetry::ownership_ended(self.partition, &ended);
            match &ended {
                OwnershipEnd::Released | OwnershipEnd::Fenced => lease.release().await,
                // Another instance may succeed.
                OwnershipEnd::Failed(_) | OwnershipEnd::Halted(_) => lease.give_up().await,
            }
            let pause = match &ended {
                OwnershipEnd::Released | OwnershipEnd::Fenced => Duration::ZERO,
                OwnershipEnd::Failed(error) => {
                    self.set_ready(Err(format!("{error:#}")));
                    FAILED_PAUSE
                }
                OwnershipEnd::Halted(error) => {
                    self.set_ready(Err(format!("{error:#}")));
                    Duration::from_secs(self.context.config.fold.halted_pause_seconds)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Owns the partition while the lease holds. After a failure the streams are checked first: a
    /// bus that lost its data gets them back above the cursors.
    async fn own(
        &self,
        lease: &Lease,
        check_streams: bool,
        readiness: &mut Readiness,
    ) -> OwnershipEnd {
        let stop = CancellationToken::new();
        let watch = async {
            tokio::select! {
                () = lease.recalled() => {}
                () = self.context.shutdown.cancelled() => {}
            }
            stop.cancel();
            // The work ends by itself once it is told to stop.
            std::future::pending::<OwnershipEnd>().await
        };
        tokio::select! {
            ended = watch => ended,
            ended = self.work(lease, &stop, check_streams, readiness) => ended,
        }
    }

    async fn work(
        &self,
        lease: &Lease,
        stop: &CancellationToken,
        check_streams: bool,
        readiness: &mut Readiness,
    ) -> OwnershipEnd {
        self.set_ready(readiness.check().and(Err("taking over".to_owned())));
        if check_streams && let Err(error) = compare_streams(&self.bus, &self.store).await {
            return if is_transient(&error) {
                OwnershipEnd::Failed(error)
            } else {
                OwnershipEnd::Halted(error)
            };
        }
        // One log handle for the whole ownership: it must not outlive the streams of the state.
        let log = self.bus.output(self.partition);
        let takeover = TakeoverDriver {
            bus: self.bus.clone(),
            log: log.clone(),
            store: Arc::clone(&self.store),
            manifests: self.manifests.clone(),
            partition: self.partition,
        };
        let acquired = tokio::select! {
            () = stop.cancelled() => return OwnershipEnd::Released,
            acquired = takeover.run() => acquired,
        };
        let (live, usage) = match acquired {
            Ok(taken) => {
                lease.set_epoch(taken.epoch);
                let usage = match PartitionLogUsage::read(&self.bus, self.partition).await {
                    Ok(usage) => usage,
                    Err(ended) => return ended,
                };
                let live = LiveLoop::new(
                    (&self.bus, self.manifests.clone(), Arc::clone(&self.keys)),
                    log,
                    (self.partition, taken),
                    &usage,
                    &self.context.config,
                );
                (live.await, usage)
            }
            Err(ended) => return ended,
        };
        match live {
            Ok(live) => {
                readiness.observe_log(&usage.output, live.check_output_capacity());
                self.set_ready(readiness.check());
                telemetry::set_owned(self.partition, true);
                self.manifests.set_owned(self.partition, true);
                let mut report = |progress: Progress<'_>| {
                    let before = readiness.check();
                    match progress {
                        Progress::Appended(summary) => readiness.appended(summary.entries),
                        Progress::Observed(output, capacity) => {
                            readiness.observe_log(output, capacity)
                        }
                    }
                    let state = readiness.check();
                    if state != before {
                        self.set_ready(state);
                    }
                };
                live.run(stop, &mut report).await
            }
            Err(ended) => ended,
        }
    }

    fn set_ready(&self, state: Result<(), String>) {
        let component = Self::component(self.partition);
        self.context.readiness.set_ready(&component, state);
    }
}
