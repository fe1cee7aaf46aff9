//! Room in the output log: the owner stops folding before the log is full. The rest belongs to barriers and
//! to announced checkpoints, behind which the log is trimmed.

use std::collections::VecDeque;

use nixfleet_bus::LogUsage;

/// Part of an output log that is kept free of outcomes.
const RESERVE_PART: u64 = 10;
/// A frame takes at most this part of the log: the one that is folded last fits as well.
const FRAME_PART: u64 = 64;

/// Most bytes of a frame in an output log with this limit, of those asked for.
pub fn frame_bytes(output_max_bytes: u64, asked: usize) -> usize {
    let part = usize::try_from(output_max_bytes / FRAME_PART).unwrap_or(asked);
    asked.min(part)
}

/// Bytes of an output log with this limit that are kept free of outcomes.
pub fn reserve_bytes(output_max_bytes: u64) -> u64 {
    output_max_bytes / RESERVE_PART
}

/// How full an output log is, as far as its owner knows: at the last look, by what it appended since, and
/// by what waits to be appended. Trimming is seen at the next look.
#[derive(Debug)]
pub(crate) struct OutputRoom {
    reserve_bytes: u64,
    looked: Option<LogUsage>,
    /// Bytes of the frames that wait to be appended, not compressed.
    queued: VecDeque<u64>,
}

impl OutputRoom {
    /// Nothing is known of the log; so much of it is kept free.
    pub(crate) fn new(reserve_bytes: u64) -> Self {
        Self {
            reserve_bytes,
            looked: None,
            queued: VecDeque::new(),
        }
    }

    /// Takes a look at the log.
    pub(crate) fn look(&mut self, fill: &LogUsage) {
        self.looked = Some(*fill);
    }

    /// A frame waits to be appended.
    pub(crate) fn queue(&mut self, bytes: usize) {
        self.queued.push_back(bytes as u64);
    }

    /// The frame that was queued first is appended, and takes so much of the log.
    pub(crate) fn appended(&mut self, bytes: u64) {
        self.queued.pop_front();
        if let Some(fill) = &mut self.looked {
            fill.bytes += bytes;
        }
    }

    /// True when nothing may be folded: with what waits to be appended the log reaches into its reserve.
    pub(crate) fn is_short(&self) -> bool {
        let queued = self.queued.iter().sum();
        self.looked
            .is_some_and(|fill| !self.has_room(&fill, queued))
    }

    /// Whether the log itself leaves its reserve free. Frames that wait are appended in a moment.
    ///
    /// # Errors
    /// Says how full the log is.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.looked {
            Some(fill) if !self.has_room(&fill, 0) => Err(format!(
                "the output log holds {} of {} bytes, and {} are kept free for barriers and checkpoints; \
                 nothing is folded until it is trimmed",
                fill.bytes, fill.max_bytes, self.reserve_bytes
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn has_room(&self, fill: &LogUsage, queued: u64) -> bool {
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
    fn frames_use_the_room_up_and_a_look_finds_it_again() {
        let mut room = OutputRoom::new(reserve_bytes(1_000));
        room.queue(2_000);
        assert!(!room.is_short(), "nothing is known of the limit");
        room.appended(2_000);
        room.look(&log(890));
        assert!(!room.is_short());
        room.queue(100);
        assert!(room.is_short());
        assert_eq!(room.check(), Ok(()));
        room.appended(10);
        assert!(!room.is_short());
        room.queue(1);
        room.appended(1);
        assert!(room.is_short());
        let reason = room.check().unwrap_err();
        assert!(reason.contains("901 of 1000 bytes"), "{reason}");
        room.look(&log(900));
        assert!(!room.is_short());
        assert_eq!(room.check(), Ok(()));
    }

    #[test]
    fn frames_of_a_small_log_are_small() {
        assert_eq!(frame_bytes(1 << 30, 1_000_000), 1_000_000);
        assert_eq!(frame_bytes(2 << 20, 1_000_000), 32_768);
    }
}
