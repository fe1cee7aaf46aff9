//! What a gateway knows of the room in the logs: looked at while agents send events.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_bus::check_capacity;
use nixfleet_proto::subject::Partition;

use crate::addressing::{Incarnation, Route};
use crate::engine::Time;
use crate::model::{CallResult, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// How old a look may be while there is much room.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same when some log is more than half full.
const LOOK_OFTEN: Duration = Duration::from_millis(50);
/// From here on logs are looked at often, in percent.
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
    look: Option<u64>,
    look_at: Time,
}

impl LogSpace {
    /// Notes how far the input is folded.
    pub fn folded(&mut self, partition: Partition, seq: u64) {
        self.partitions.entry(partition).or_default().folded = seq;
    }

    /// Whether an event of an agent may be appended, as far as the last look tells. Looks again when that
    /// was long ago.
    pub fn has_room(
        &mut self,
        partition: Partition,
        me: Incarnation,
        env: &mut Environment,
    ) -> bool {
        let space = self.partitions.entry(partition).or_default();
        if space.look.is_none() && env.now >= space.look_at {
            space.look = Some(env.call(
                me,
                Route::LogSpace(partition),
                ServerRequest::LogUsage(partition),
            ));
        }
        !space.is_full
    }

    /// Takes a look. What does not answer keeps the last word.
    pub fn take(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let space = self.partitions.entry(partition).or_default();
        if space.look.take_if(|asked| *asked == call).is_none() {
            return;
        }
        space.look_at = env.now + LOOK_EVERY;
        let Some(ServerReply::LogUsage { input, output }) = reply else {
            return;
        };
        if input.percent().max(output.percent()) >= HALF_FULL {
            space.look_at = env.now + LOOK_OFTEN;
        }
        let unfolded = input.last_seq.saturating_sub(space.folded);
        let found = check_capacity(&input, &output, unfolded.min(input.messages));
        let was_full = std::mem::replace(&mut space.is_full, found.is_err());
        if let (false, Err(reason)) = (was_full, found) {
            env.trace(format_args!("agents of {partition} are refused: {reason}"));
        }
    }
}
