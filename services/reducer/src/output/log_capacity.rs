//! Capacity of the output log. The owner stops folding before the log is full. The reserve belongs
//! to barriers and to checkpoint announcements, which allow trimming.

use std::collections::VecDeque;

use nixfleet_bus::LogUsage;

/// Divisor of the log's limit that gives the reserve.
const RESERVE_DIVISOR: u64 = 10;
/// Divisor of the log's limit that gives the largest frame: the last folded frame fits as well.
const FRAME_DIVISOR: u64 = 64;

/// Maximum of bytes of a frame in an output log with this limit, at most `asked`.
pub fn frame_bytes(output_max_bytes: u64, asked: usize) -> usize {
    let part = usize::try_from(output_max_bytes / FRAME_DIVISOR).unwrap_or(asked);
    asked.min(part)
}

/// Bytes of an output log with this limit that are reserved.
pub fn reserve_bytes(output_max_bytes: u64) -> u64 {
    output_max_bytes / RESERVE_DIVISOR
}

/// Estimated fill of an output log: the last observation, the frames appended since, and the frames
/// that wait. Trimming shows at the next observation.
#[derive(Debug)]
pub(crate) struct OutputCapacity {
    reserve_bytes: u64,
    observed: Option<LogUsage>,
    /// Uncompressed bytes of each frame that waits to be appended.
    queued: VecDeque<u64>,
}

impl OutputCapacity {
    /// Creates an estimate without an observation.
    pub(crate) fn new(reserve_bytes: u64) -> Self {
        Self {
            reserve_bytes,
            observed: None,
            queued: VecDeque::new(),
        }
    }

    /// Takes an observation of the log.
    pub(crate) fn observe(&mut self, fill: &LogUsage) {
        self.observed = Some(*fill);
    }

    /// Adds a frame that waits to be appended.
    pub(crate) fn queue(&mut self, bytes: usize) {
        self.queued.push_back(bytes as u64);
    }

    /// Moves the first queued frame into the log, where it takes this many bytes.
    pub(crate) fn appended(&mut self, bytes: u64) {
        self.queued.pop_front();
        if let Some(fill) = &mut self.observed {
            fill.bytes += bytes;
        }
    }

    /// True when the waiting frames would take the log into its reserve: nothing may be folded.
    pub(crate) fn is_full(&self) -> bool {
        let queued = self.queued.iter().sum();
        self.observed
            .is_some_and(|fill| !self.has_capacity(&fill, queued))
    }

    /// Checks that the log, without the frames that wait, leaves its reserve free.
    ///
    /// # Errors
    /// States the fill of the log.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.observed {
            Some(fill) if !self.has_capacity(&fill, 0) => Err(format!(
                "the output log holds {} of {} bytes, and {} are reserved for barriers and checkpoints; \
                 nothing is folded until it is trimmed",
                fill.bytes, fill.max_bytes, self.reserve_bytes
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn has_capacity(&self, fill: &LogUsage, queued: u64) -> bool {
        let taken = [fill.bytes, queued, self.reserve_bytes];
        let taken = taken.into_iter().fold(0, u64::saturating_add);
        fill.max_bytes == 0 || taken <= fill.max_bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    /// A log with a limit of 1,000 bytes.
    pub(crate) fn log(bytes: u64) -> LogUsage {
        LogUsage {
            created: Timestamp::UNIX_EPOCH,
            first_seq: 1,
            last_seq: 10,
            messages: 10,
            bytes,
            max_bytes: 1_000,
        }
    }

    #[test]
    fn frames_use_capacity_and_an_observation_restores_it() {
        let mut capacity = OutputCapacity::new(reserve_bytes(1_000));
        capacity.queue(2_000);
        assert!(!capacity.is_full(), "the limit is unknown");
        capacity.appended(2_000);
        capacity.observe(&log(890));
        assert!(!capacity.is_full());
        capacity.queue(100);
        assert!(capacity.is_full());
        assert_eq!(capacity.check(), Ok(()));
        capacity.appended(10);
        assert!(!capacity.is_full());
        capacity.queue(1);
        capacity.appended(1);
        assert!(capacity.is_full());
        let reason = capacity.check().unwrap_err();
        assert!(reason.contains("901 of 1000 bytes"), "{reason}");
        capacity.observe(&log(900));
        assert!(!capacity.is_full());
        assert_eq!(capacity.check(), Ok(()));
    }

    #[test]
    fn the_frame_limit_follows_the_limit_of_the_log() {
        assert_eq!(frame_bytes(1 << 30, 1_000_000), 1_000_000);
        assert_eq!(frame_bytes(2 << 20, 1_000_000), 32_768);
    }
}
