//! The life of one partition in this process: stand by, own, start over.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::{Bus, Lease, Leases};
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{Ended, Readiness};
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;

use crate::acquire::Acquire;
use crate::artifacts::Artifacts;
use crate::config::Config;
use crate::layout::{is_transient, layout};
use crate::live::{HeldLogs, Live, Progress};
use crate::report;

/// Pause after a failure, so that a server that is away is not hammered.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// One partition and what its ownership needs.
pub struct Worker {
    /// The bus.
    pub bus: Bus,
    /// The rows.
    pub store: Arc<Store>,
    /// What manifests pin.
    pub artifacts: Artifacts,
    /// The leases of this instance.
    pub leases: Leases,
    /// The partition.
    pub partition: Partition,
    /// Configuration, health and shutdown.
    pub context: Context<Config>,
}

impl Worker {
    /// Name of the partition in readiness.
    pub fn component(partition: Partition) -> String {
        format!("partition-{partition}")
    }

    /// Runs until the process stops.
    ///
    /// # Errors
    /// Never; the signature is that of a task.
    pub async fn run(self) -> anyhow::Result<()> {
        let stop = &self.context.shutdown;
        let key = self.partition.to_string();
        let mut suspicious = false;
        let mut readiness = Readiness::default();
        loop {
            self.say(readiness.check());
            let lease = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lease = self.leases.acquire(&key) => lease,
            };
            let ended = self.own(&lease, suspicious, &mut readiness).await;
            readiness.ended(&ended);
            suspicious = matches!(ended, Ended::Failed(_));
            report::owned(self.partition, false);
            self.artifacts.own(self.partition, false);
            report::ended(self.partition, &ended);
            match &ended {
                Ended::Released | Ended::Fenced => lease.release().await,
                // What fails here may succeed elsewhere.
                Ended::Failed(_) | Ended::Halted(_) => lease.give_up().await,
            }
            let pause = match &ended {
                Ended::Released | Ended::Fenced => Duration::ZERO,
                Ended::Failed(error) => {
                    self.say(Err(format!("{error:#}")));
                    FAILED_PAUSE
                }
                Ended::Halted(error) => {
                    self.say(Err(format!("{error:#}")));
                    Duration::from_secs(self.context.config.fold.halted_pause_seconds)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes the partition over and works on it while the lease holds. After a failure the streams
    /// are looked at first: a bus that lost its data gets them back above the cursors.
    async fn own(&self, lease: &Lease, suspicious: bool, readiness: &mut Readiness) -> Ended {
        let stop = CancellationToken::new();
        let watch = async {
            tokio::select! {
                () = lease.recalled() => {}
                () = self.context.shutdown.cancelled() => {}
            }
            stop.cancel();
            // The work below ends by itself then.
            std::future::pending::<Ended>().await
        };
        tokio::select! {
            ended = watch => ended,
            ended = self.work(lease, &stop, suspicious, readiness) => ended,
        }
    }

    async fn work(
        &self,
        lease: &Lease,
        stop: &CancellationToken,
        suspicious: bool,
        readiness: &mut Readiness,
    ) -> Ended {
        self.say(readiness.check().and(Err("taking over".to_owned())));
        if suspicious && let Err(error) = layout(&self.bus, &self.store).await {
            return if is_transient(&error) {
                Ended::Failed(error)
            } else {
                Ended::Halted(error)
            };
        }
        // One for all of the ownership: it must not outlive the streams that the state is of.
        let log = self.bus.output(self.partition);
        let acquire = Acquire {
            bus: self.bus.clone(),
            log: log.clone(),
            store: Arc::clone(&self.store),
            artifacts: self.artifacts.clone(),
            partition: self.partition,
        };
        let taken = tokio::select! {
            () = stop.cancelled() => return Ended::Released,
            taken = acquire.run() => taken,
        };
        let (live, held) = match taken {
            Ok(taken) => {
                lease.set_epoch(taken.epoch);
                let held = match HeldLogs::look(&self.bus, self.partition).await {
                    Ok(held) => held,
                    Err(ended) => return ended,
                };
                let live = Live::new(
                    (&self.bus, self.artifacts.clone()),
                    log,
                    (self.partition, taken),
                    &held,
                    &self.context.config,
                );
                (live.await, held)
            }
            Err(ended) => return ended,
        };
        match live {
            Ok(live) => {
                readiness.look(&held.output, live.check_room());
                self.say(readiness.check());
                report::owned(self.partition, true);
                self.artifacts.own(self.partition, true);
                let mut tell = |progress: Progress<'_>| {
                    let before = readiness.check();
                    match progress {
                        Progress::Appended(told) => readiness.appended(told.entries),
                        Progress::Looked(output, room) => readiness.look(output, room),
                    }
                    let state = readiness.check();
                    if state != before {
                        self.say(state);
                    }
                };
                live.live(stop, &mut tell).await
            }
            Err(ended) => ended,
        }
    }

    fn say(&self, state: Result<(), String>) {
        let component = Self::component(self.partition);
        self.context.health.set_ready(&component, state);
    }
}
