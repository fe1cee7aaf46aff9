//! Capacity of the logs: agents are refused before a log is full, so that planner, recovery and operators go
//! on, and so that what is admitted can be folded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use nixfleet_bus::{Bus, LogUsage, check_capacity};
use nixfleet_proto::InputMark;
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;

use nixfleet_http::ApiError;

/// How often the logs are looked at while there is much room.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The same when some log is more than half full.
const LOOK_OFTEN: Duration = Duration::from_millis(50);
/// From here on logs are looked at often, in percent.
const HALF_FULL: u64 = 50;
/// Partitions looked at at once.
const READS_AT_ONCE: usize = 8;
/// When a refused agent should come again, in seconds: trimming takes one or two.
const RETRY_AFTER_SECONDS: u32 = 10;

/// What is known of the logs of every partition.
#[derive(Debug, Default)]
pub struct LogCapacity {
    partitions: Vec<PartitionCapacity>,
}

#[derive(Debug, Default)]
struct PartitionCapacity {
    is_full: AtomicBool,
    reason: Mutex<String>,
    /// Sequence of the last input message that is folded.
    folded: Mutex<u64>,
}

impl LogCapacity {
    /// Every log has room until it was looked at.
    pub fn new(partitions: u16) -> Self {
        let rooms = Partition::all(partitions).map(|_| PartitionCapacity::default());
        Self {
            partitions: rooms.collect(),
        }
    }

    /// Whether an event of an agent may be appended.
    ///
    /// # Errors
    /// 503 `log-full`.
    pub fn check(&self, partition: Partition) -> Result<(), ApiError> {
        let room = self.partitions.get(usize::from(partition.number()));
        match room {
            Some(room) if room.is_full.load(Ordering::Relaxed) => {
                metrics::counter!("nixfleet_log_full_refusals_total",
                    "partition" => partition.to_string())
                .increment(1);
                let reason = lock(&room.reason).clone();
                Err(ApiError::unavailable(
                    "log-full",
                    reason,
                    RETRY_AFTER_SECONDS,
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Notes how far the input is folded.
    pub fn folded(&self, partition: Partition, mark: InputMark) {
        if let Some(room) = self.partitions.get(usize::from(partition.number())) {
            *lock(&room.folded) = mark.seq;
        }
    }

    /// Takes a look at both logs of a partition.
    fn look(&self, partition: Partition, (input, output): (&LogUsage, &LogUsage)) {
        let Some(room) = self.partitions.get(usize::from(partition.number())) else {
            return;
        };
        let unfolded = input.last_seq.saturating_sub(*lock(&room.folded));
        let found = check_capacity(input, output, unfolded.min(input.messages));
        let was_full = room.is_full.load(Ordering::Relaxed);
        match found {
            Ok(()) if was_full => {
                tracing::info!(%partition, "the logs have room again");
                room.is_full.store(false, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(reason) => {
                let reason = format!("partition {partition}: {reason}");
                if !was_full {
                    tracing::warn!(reason, "agents are refused");
                }
                *lock(&room.reason) = reason;
                room.is_full.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Looks at all logs until stopped. What does not answer keeps the last word.
pub async fn follow(bus: &Bus, room: &LogCapacity, stop: CancellationToken) {
    loop {
        let partitions = Partition::all(bus.partitions());
        let looks = stream::iter(partitions.map(|partition| look(bus, room, partition)));
        let fullest = looks
            .buffer_unordered(READS_AT_ONCE)
            .fold(0, async |fullest: u64, percent| fullest.max(percent))
            .await;
        let pause = if fullest >= HALF_FULL {
            LOOK_OFTEN
        } else {
            CHECK_INTERVAL
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Looks at the logs of a partition; gives how full the fuller one is, in percent.
async fn look(bus: &Bus, room: &LogCapacity, partition: Partition) -> u64 {
    let names = bus.names();
    let input = bus.log_usage_once(&names.input_stream(partition)).await;
    let output = bus.log_usage_once(&names.output_stream(partition)).await;
    let (input, output) = match (input, output) {
        (Ok(input), Ok(output)) => (input, output),
        (Err(reason), _) | (_, Err(reason)) => {
            tracing::debug!(%partition, reason, "the logs cannot be looked at");
            return 0;
        }
    };
    room.look(partition, (&input, &output));
    input.percent().max(output.percent())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one assignment: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    fn log(percent: u64) -> LogUsage {
        LogUsage {
            created: Timestamp::UNIX_EPOCH,
            first_seq: 1,
            last_seq: 100,
            messages: 100,
            bytes: percent * 100,
            max_bytes: 10_000,
        }
    }

    #[test]
    fn agents_are_refused_while_a_log_is_nearly_full_and_by_partition() {
        let room = LogCapacity::new(2);
        let [first, second] = [0, 1].map(Partition::new);
        let mark = InputMark {
            seq: 100,
            index: 0,
            of: 1,
        };
        room.folded(first, mark);
        room.folded(second, mark);
        assert!(room.check(first).is_ok());
        room.look(first, (&log(10), &log(85)));
        room.look(second, (&log(10), &log(20)));
        assert!(room.check(first).is_err());
        assert!(room.check(second).is_ok());
        room.look(first, (&log(10), &log(30)));
        assert!(room.check(first).is_ok());
    }

    #[test]
    fn what_is_not_folded_yet_needs_room_in_the_output_log() {
        let room = LogCapacity::new(1);
        let partition = Partition::new(0);
        room.look(partition, (&log(30), &log(10)));
        assert!(room.check(partition).is_err());
        room.folded(
            partition,
            InputMark {
                seq: 95,
                index: 0,
                of: 1,
            },
        );
        room.look(partition, (&log(30), &log(10)));
        assert!(room.check(partition).is_ok());
    }
}
