//! Usage of a log, and whether it accepts more events of agents.

use nixfleet_proto::Timestamp;

/// Range and size of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogUsage {
    /// When the stream was created.
    pub created: Timestamp,
    /// First sequence it holds.
    pub first_seq: u64,
    /// Last sequence ever stored.
    pub last_seq: u64,
    /// Messages it holds.
    pub messages: u64,
    /// Bytes it holds.
    pub bytes: u64,
    /// Size limit in bytes; 0 when there is none.
    pub max_bytes: u64,
}

impl LogUsage {
    /// Usage in percent of the limit, rounded down; 0 without a limit.
    pub fn percent(&self) -> u64 {
        self.bytes
            .saturating_mul(100)
            .checked_div(self.max_bytes)
            .unwrap_or(0)
    }

    /// Bytes that events of agents may still take; none above [`AGENT_EVENTS_MAX_PERCENT`], all without a
    /// limit.
    pub fn agents_room(&self) -> u64 {
        if self.max_bytes == 0 {
            return u64::MAX;
        }
        let agents = u128::from(self.max_bytes) * u128::from(AGENT_EVENTS_MAX_PERCENT) / 100;
        u64::try_from(agents).map_or(u64::MAX, |agents| agents.saturating_sub(self.bytes))
    }

    /// Estimated size of so many messages.
    pub fn bytes_of(&self, messages: u64) -> u64 {
        let bytes = u128::from(self.bytes) * u128::from(messages);
        let bytes = bytes.checked_div(u128::from(self.messages)).unwrap_or(0);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Estimated first sequence of the last `bytes` bytes.
    pub(super) fn first_of_last(&self, bytes: u64) -> u64 {
        if bytes >= self.bytes {
            return self.first_seq;
        }
        let kept = u128::from(self.messages) * u128::from(bytes) / u128::from(self.bytes.max(1));
        self.last_seq.saturating_add(1) - u64::try_from(kept).unwrap_or(u64::MAX)
    }
}

/// Usage in percent from which on a log accepts no events of agents: the rest is reserved for planner,
/// recovery and operators.
pub const AGENT_EVENTS_MAX_PERCENT: u64 = 80;
/// Usage in percent from which on a log is reported as a problem.
pub const LOG_PROBLEM_PERCENT: u64 = 70;
/// Most bytes of outcomes per byte of input in steady operation: outcomes contain whole records.
const OUTPUT_PER_INPUT: u64 = 4;

/// Whether events of agents may be appended. Both logs need space, the output log also for the outcomes of
/// all entries that are not folded yet.
pub fn check_capacity(input: &LogUsage, output: &LogUsage, unfolded: u64) -> Result<(), String> {
    if input.percent() >= AGENT_EVENTS_MAX_PERCENT {
        return Err(format!("the input log is {} % full", input.percent()));
    }
    let outcomes = input.bytes_of(unfolded).saturating_mul(OUTPUT_PER_INPUT);
    let expected = LogUsage {
        bytes: output.bytes.saturating_add(outcomes),
        ..*output
    };
    if expected.percent() >= AGENT_EVENTS_MAX_PERCENT {
        return Err(format!(
            "the output log is {} % full, {} % with the outcomes of entries that are not folded yet",
            output.percent(),
            expected.percent()
        ));
    }
    Ok(())
}
