//! Each input has one outcome of one owner: output frames cover the input log without gaps and overlaps, and
//! epochs only rise, by barriers.
//!
//! Source: docs/wire-protocol.md, frames.

use std::collections::BTreeMap;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{InputMark, OutputFrame, Position};

use super::folded_entry::CheckResult;

/// The end of each output log.
#[derive(Debug, Default)]
pub struct Epochs {
    last: BTreeMap<Partition, LogEnd>,
}

/// The last frame of an output log.
#[derive(Debug, Clone, Copy, Default)]
struct LogEnd {
    epoch: u64,
    input: Option<InputMark>,
}

impl Epochs {
    /// The log lost its end, and ends with this frame.
    pub fn rewind(&mut self, partition: Partition, frame: Option<&OutputFrame>) {
        let last = frame.map(|frame| LogEnd {
            epoch: frame.epoch,
            input: frame.last_input,
        });
        self.last.insert(partition, last.unwrap_or_default());
    }

    /// Checks a frame, beside an input log that begins at `begins`. The first barrier of all covers
    /// what will never come, where the log was made anew above what is lost by now.
    ///
    /// # Errors
    /// Says what does not follow.
    pub fn check(&mut self, partition: Partition, frame: &OutputFrame, begins: u64) -> CheckResult {
        let LogEnd { epoch, input: mark } = self.last.get(&partition).copied().unwrap_or_default();
        if frame.checkpoints.is_some() {
            if frame.epoch != epoch || frame.last_input != mark || frame.first_input.is_some() {
                return Err(format!(
                    "epoch {} announces a checkpoint at {:?}, the log is answered to {mark:?} in epoch \
                     {epoch}",
                    frame.epoch, frame.last_input
                ));
            }
            return Ok(());
        }
        let Some(first) = frame.first_input else {
            if frame.epoch <= epoch {
                return Err(format!(
                    "a barrier of epoch {} follows {epoch}",
                    frame.epoch
                ));
            }
            let skipped = (epoch == 0 && begins > 1).then_some(InputMark {
                seq: begins - 1,
                index: 0,
                of: 1,
            });
            if !frame.outcomes.is_empty() || frame.last_input != mark.or(skipped) {
                return Err("a barrier covers inputs".to_owned());
            }
            let end = LogEnd {
                epoch: frame.epoch,
                input: frame.last_input,
            };
            self.last.insert(partition, end);
            return Ok(());
        };
        if frame.epoch != epoch {
            return Err(format!("epoch {} publishes in epoch {epoch}", frame.epoch));
        }
        let wanted = mark.map_or(Position { seq: 1, index: 0 }, InputMark::next);
        if first != wanted {
            return Err(format!(
                "a frame begins at {first:?}, the log is answered to {wanted:?}"
            ));
        }
        let rising = frame.outcomes.iter().map(|outcome| outcome.position);
        let within = |position: Position| {
            let last = frame.last_input.map(|mark| (mark.seq, mark.index));
            position >= first && last.is_some_and(|last| (position.seq, position.index) <= last)
        };
        if !rising.clone().is_sorted_by(|a, b| a < b) || !rising.clone().all(within) {
            return Err(format!("the outcomes behind {first:?} are out of order"));
        }
        let end = LogEnd {
            epoch,
            input: frame.last_input,
        };
        self.last.insert(partition, end);
        Ok(())
    }
}
