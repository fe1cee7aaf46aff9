//! Free space of the logs as a gateway knows it: read while agents send events.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_bus::check_capacity;
use nixfleet_proto::subject::Partition;

use crate::addressing::{Incarnation, Route};
use crate::engine::Time;
use crate::simulated_servers::{CallResult, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// How long a reading is used while the logs have much space.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// The same while a log is more than half full.
const READ_INTERVAL_HALF_FULL: Duration = Duration::from_millis(50);
/// Usage from which on logs are read often, in percent.
const HALF_FULL: u64 = 50;

/// The logs of all partitions.
#[derive(Debug, Default)]
pub struct LogSpace {
    partitions: BTreeMap<Partition, PartitionSpace>,
}

#[derive(Debug, Default)]
struct PartitionSpace {
    is_full: bool,
    /// Sequence of the last input message that is folded.
    folded: u64,
    pending: Option<u64>,
    next_read_at: Time,
}

impl LogSpace {
    /// Records how far the input is folded.
    pub fn folded(&mut self, partition: Partition, seq: u64) {
        self.partitions.entry(partition).or_default().folded = seq;
    }

    /// Whether events of agents are accepted according to the last reading. Starts a new reading when the last
    /// one is too old.
    pub fn has_room(
        &mut self,
        partition: Partition,
        me: Incarnation,
        env: &mut Environment,
    ) -> bool {
        let space = self.partitions.entry(partition).or_default();
        if space.pending.is_none() && env.now >= space.next_read_at {
            space.pending = Some(env.call(
                me,
                Route::LogSpace(partition),
                ServerRequest::LogUsage(partition),
            ));
        }
        !space.is_full
    }

    /// Processes a reading; without a reply the last one stays.
    pub fn take(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let space = self.partitions.entry(partition).or_default();
        if space.pending.take_if(|asked| *asked == call).is_none() {
            return;
        }
        space.next_read_at = env.now + READ_INTERVAL;
        let Some(ServerReply::LogUsage { input, output }) = reply else {
            return;
        };
        if input.percent().max(output.percent()) >= HALF_FULL {
            space.next_read_at = env.now + READ_INTERVAL_HALF_FULL;
        }
        let unfolded = input.last_seq.saturating_sub(space.folded);
        let found = check_capacity(&input, &output, unfolded.min(input.messages));
        let was_full = std::mem::replace(&mut space.is_full, found.is_err());
        if let (false, Err(reason)) = (was_full, found) {
            env.trace(format_args!("agents of {partition} are refused: {reason}"));
        }
    }
}
