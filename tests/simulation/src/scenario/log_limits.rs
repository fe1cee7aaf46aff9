//! Byte limits of the logs: so small that logs are trimmed in most runs, and full in many.

use nixfleet_reducer::{CheckpointLimits, reserve_bytes};

use crate::engine::Rng;
use crate::simulated_servers::LogId;

/// Part of a log that grows between two checkpoints: two of these distances and what grows meanwhile stay
/// below half of it.
const CHECKPOINT_PART: u64 = 6;
/// Bytes of an output log that are kept free at least: a tenth of so small a log holds a few barriers only.
const RESERVE: u64 = 12_000;
/// Part of an output log that a frame takes: the one that is folded last still fits.
const FRAME_PART: u64 = 20;
/// Bytes of a log whatever the fleet is: a few frames.
const BASE: u64 = 30_000;
/// Bytes of a log for each host.
const PER_HOST: u64 = 3_200;

/// Byte limits of the logs of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Of an input log.
    pub input: u64,
    /// Of an output log.
    pub output: u64,
}

impl LogLimits {
    /// The limits of a seed, for so many hosts.
    pub fn of(seed: u64, hosts: usize) -> Self {
        let mut rng = Rng::new(seed, "log limits");
        let hosts = hosts as u64;
        let percent = *rng.pick(&[100_u64, 100, 120, 150, 200]);
        let output = (BASE + hosts * PER_HOST) * percent / 100;
        let input = output * *rng.pick(&[50_u64, 75, 100]) / 100;
        Self { input, output }
    }

    /// Of one log.
    pub fn of_log(&self, log: LogId) -> u64 {
        match log {
            LogId::Input(_) => self.input,
            LogId::Output(_) => self.output,
        }
    }

    /// Most bytes of a frame, as long as an outcome does not take more.
    pub fn frame_bytes(&self) -> usize {
        (self.output / FRAME_PART) as usize
    }

    /// Bytes of an output log that are kept free of outcomes.
    pub fn reserve_bytes(&self) -> u64 {
        reserve_bytes(self.output).max(RESERVE)
    }

    /// When a checkpoint is due.
    pub fn checkpoints(&self) -> CheckpointLimits {
        let max_log_bytes = self.input.min(self.output) / CHECKPOINT_PART;
        CheckpointLimits {
            min_log_bytes: max_log_bytes,
            max_log_bytes,
        }
    }
}
