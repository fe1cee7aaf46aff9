//! Capacity of the logs: agents are refused before a log is full, so that planner, recovery and operators go
//! on, and so that what is admitted can be folded.
//!
//! Each check of a log lets in a share of the room that was found; without the next check there is no more. A
//! flood cannot take the reserve between two checks, nor when checks fail because of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use nixfleet_bus::{Bus, LogUsage, check_capacity};
use nixfleet_proto::InputMark;
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;
use tokio::sync::Semaphore;

use nixfleet_http::ApiError;

/// How often the logs are checked while there is much room.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The same of a partition with a log that is more than half full.
const CHECK_INTERVAL_FULLER: Duration = Duration::from_millis(50);
/// Percentage of a log from which its partition is checked often.
const HALF_FULL: u64 = 50;
/// Partitions checked at the same time.
const CHECKS_AT_ONCE: usize = 8;
/// When a refused agent should come again, in seconds: trimming takes one or two.
const RETRY_AFTER_SECONDS: u32 = 10;
/// The same when the next check decides.
const RETRY_AFTER_CHECK_SECONDS: u32 = 1;
/// Bytes that are let in before the first check.
const FIRST_ALLOWANCE_BYTES: u64 = 4 << 20;
/// Part of the room that this gateway takes until the next check: others append at the same time.
const ALLOWANCE_DIVISOR: u64 = 4;

/// What is known of the logs of every partition.
#[derive(Debug, Default)]
pub struct LogCapacity {
    partitions: Vec<PartitionCapacity>,
}

#[derive(Debug)]
struct PartitionCapacity {
    is_full: AtomicBool,
    reason: Mutex<String>,
    /// Sequence of the last input message that is folded.
    folded: Mutex<u64>,
    /// Bytes of events that this gateway let in since it started.
    admitted: AtomicU64,
    /// Where `admitted` has to stop until the next check.
    admitted_max: AtomicU64,
    /// `admitted` when the last check began: what came later may not be in what it found.
    before_check: Mutex<u64>,
}

impl PartitionCapacity {
    fn new() -> Self {
        Self {
            is_full: AtomicBool::new(false),
            reason: Mutex::default(),
            folded: Mutex::default(),
            admitted: AtomicU64::new(0),
            admitted_max: AtomicU64::new(FIRST_ALLOWANCE_BYTES),
            before_check: Mutex::default(),
        }
    }

    /// Lets so many bytes in, or none.
    fn take(&self, bytes: u64) -> bool {
        let before = self.admitted.fetch_add(bytes, Ordering::Relaxed);
        let is_in = before.saturating_add(bytes) <= self.admitted_max.load(Ordering::Relaxed);
        if !is_in {
            self.admitted.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_in
    }
}

impl LogCapacity {
    /// Every log has little room until it was checked.
    pub fn new(partitions: u16) -> Self {
        let rooms = Partition::all(partitions).map(|_| PartitionCapacity::new());
        Self {
            partitions: rooms.collect(),
        }
    }

    /// Takes room for events of an agent of this size.
    ///
    /// # Errors
    /// 503 `log-full`.
    pub fn take(&self, partition: Partition, bytes: usize) -> Result<(), ApiError> {
        let Some(room) = self.partitions.get(usize::from(partition.number())) else {
            return Ok(());
        };
        let refuse = |reason, seconds| {
            metrics::counter!("nixfleet_log_full_refusals_total",
                "partition" => partition.to_string())
            .increment(1);
            Err(ApiError::unavailable("log-full", reason, seconds))
        };
        if room.is_full.load(Ordering::Relaxed) {
            return refuse(lock(&room.reason).clone(), RETRY_AFTER_SECONDS);
        }
        if !room.take(bytes as u64) {
            let reason = format!(
                "partition {partition}: agents took their share of the room that the log had when its size \
                 was last read"
            );
            return refuse(reason, RETRY_AFTER_CHECK_SECONDS);
        }
        Ok(())
    }

    /// Notes how far the input is folded.
    pub fn folded(&self, partition: Partition, mark: InputMark) {
        if let Some(room) = self.partitions.get(usize::from(partition.number())) {
            *lock(&room.folded) = mark.seq;
        }
    }

    /// Bytes let in so far, to be asked for before a log is checked.
    fn admitted(&self, partition: Partition) -> u64 {
        let room = self.partitions.get(usize::from(partition.number()));
        room.map_or(0, |room| room.admitted.load(Ordering::Relaxed))
    }

    /// Takes what a check of both logs of a partition found, which began when so many bytes were let in.
    fn update(
        &self,
        (partition, admitted): (Partition, u64),
        (input, output): (&LogUsage, &LogUsage),
    ) {
        let Some(room) = self.partitions.get(usize::from(partition.number())) else {
            return;
        };
        // Frames that were queued before the check may be stored after it.
        let counted = std::mem::replace(&mut *lock(&room.before_check), admitted);
        let share = input.agents_room() / ALLOWANCE_DIVISOR;
        room.admitted_max
            .store(counted.saturating_add(share), Ordering::Relaxed);
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

/// Checks the logs of all partitions until stopped. A log that does not answer keeps what the last check let in.
pub async fn follow(bus: &Bus, room: &LogCapacity, stop: CancellationToken) {
    let turns = Semaphore::new(CHECKS_AT_ONCE);
    let partitions = Partition::all(bus.partitions());
    let followed = partitions.map(|partition| follow_partition(bus, (room, &turns), partition));
    stop.run_until_cancelled(join_all(followed)).await;
}

async fn follow_partition(
    bus: &Bus,
    (room, turns): (&LogCapacity, &Semaphore),
    partition: Partition,
) {
    loop {
        // The semaphore is never closed: without a permit the check would only come earlier.
        let turn = turns.acquire().await;
        let percent = check(bus, room, partition).await;
        drop(turn);
        let pause = match percent {
            HALF_FULL.. => CHECK_INTERVAL_FULLER,
            _ => CHECK_INTERVAL,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Checks the logs of a partition; gives how full the fuller one is, in percent.
async fn check(bus: &Bus, room: &LogCapacity, partition: Partition) -> u64 {
    let names = bus.names();
    let admitted = room.admitted(partition);
    let input = bus.log_usage_once(&names.input_stream(partition)).await;
    let output = bus.log_usage_once(&names.output_stream(partition)).await;
    let (input, output) = match (input, output) {
        (Ok(input), Ok(output)) => (input, output),
        (Err(reason), _) | (_, Err(reason)) => {
            tracing::debug!(%partition, reason, "the logs cannot be checked");
            return 0;
        }
    };
    room.update((partition, admitted), (&input, &output));
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
        assert!(room.take(first, 1).is_ok());
        room.update((first, 0), (&log(10), &log(85)));
        room.update((second, 0), (&log(10), &log(20)));
        assert!(room.take(first, 1).is_err());
        assert!(room.take(second, 1).is_ok());
        room.update((first, 0), (&log(10), &log(30)));
        assert!(room.take(first, 1).is_ok());
    }

    #[test]
    fn what_is_not_folded_yet_needs_room_in_the_output_log() {
        let room = LogCapacity::new(1);
        let partition = Partition::new(0);
        room.update((partition, 0), (&log(30), &log(10)));
        assert!(room.take(partition, 1).is_err());
        room.folded(
            partition,
            InputMark {
                seq: 95,
                index: 0,
                of: 1,
            },
        );
        room.update((partition, 0), (&log(30), &log(10)));
        assert!(room.take(partition, 1).is_ok());
    }

    #[test]
    fn a_flood_between_two_checks_leaves_the_reserve_alone() {
        let room = LogCapacity::new(1);
        let partition = Partition::new(0);
        let log = |bytes: u64| LogUsage {
            bytes,
            max_bytes: 100 << 20,
            ..log(0)
        };
        room.folded(
            partition,
            InputMark {
                seq: 100,
                index: 0,
                of: 1,
            },
        );
        let flood = |event: usize| {
            let events = std::iter::repeat_with(|| room.take(partition, event));
            events.take_while(Result::is_ok).take(1_000).count()
        };
        // Nothing is known yet.
        assert_eq!(flood(1 << 20), 4);
        // 80 MiB of room, a quarter of which until the next check; a check that fails changes nothing.
        let check = |bytes| {
            let admitted = room.admitted(partition);
            room.update((partition, admitted), (&log(bytes), &log(0)));
        };
        check(0);
        assert_eq!(flood(1 << 20), 16);
        check(20 << 20);
        assert_eq!(
            flood(1 << 20),
            0,
            "what came during the last check may not be stored"
        );
        check(20 << 20);
        assert_eq!(flood(1 << 20), 15);
        check(79 << 20);
        check(79 << 20);
        assert_eq!(flood(1 << 20), 0);
        assert_eq!(flood(200_000), 1);
    }
}
