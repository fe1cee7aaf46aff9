//! Held partitions: what is reported of them, and the barriers with which they are tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use nixfleet_bus::Lease;
use nixfleet_planner::{HoldReason, LeadershipCore};
use nixfleet_proto::subject::Partition;

use crate::action_appender::{ActionAppender, PartitionAppend};
use crate::telemetry;

/// Pause before a held partition is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The held partitions of one leadership.
#[derive(Default)]
pub struct HeldPartitions {
    reported: Option<BTreeMap<Partition, HoldReason>>,
    /// Epoch in the record of the lease.
    epoch: u64,
    due: Duration,
    /// Barriers without a position. A log that does not answer delays no plan for the others.
    barriers: FuturesUnordered<BoxFuture<'static, PartitionAppend>>,
}

impl HeldPartitions {
    /// When the partitions are tried again.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Starts to append barriers to the held partitions once they are due.
    pub fn retry(&mut self, now: Duration, appender: &ActionAppender, leader: &mut LeadershipCore) {
        if now >= self.due {
            self.barriers.extend(appender.start_fencing_held(leader));
            self.due = now + RETRY_PAUSE;
        }
    }

    /// Waits for the next barrier that was appended or refused; absent when none is being appended.
    pub async fn next(&mut self) -> Option<PartitionAppend> {
        self.barriers.next().await
    }

    /// Records all barriers that are appended or refused by now.
    ///
    /// # Errors
    /// As [`PartitionAppend::record`].
    pub fn record_ready(&mut self, leader: &mut LeadershipCore) -> anyhow::Result<()> {
        while let Some(Some(append)) = self.next().now_or_never() {
            append.record(leader)?;
        }
        Ok(())
    }

    /// States changes in the metrics, the log and the record of the lease.
    pub fn report(&mut self, leader: &LeadershipCore, lease: &Lease, partitions: u16) {
        let (held, epoch) = (leader.held(), leader.epoch());
        let is_reported = self.reported.as_ref() == Some(&held);
        if is_reported && self.epoch == epoch {
            return;
        }
        self.epoch = epoch;
        lease.set_progress(epoch, held.keys().map(Partition::to_string).collect());
        if is_reported {
            return;
        }
        for partition in Partition::all(partitions) {
            telemetry::set_held(partition, held.contains_key(&partition));
        }
        tracing::info!(held = ?held, "partitions in which nothing is planned");
        self.reported = Some(held);
    }
}
