//! After the faults, the logs are below their limits and every owner is ready; no owner reports that it is
//! ready while its log refuses its frames.

use std::collections::BTreeMap;

use nixfleet_bus::LogUsage;
use nixfleet_proto::subject::Partition;

use super::folded_entry::CheckResult;
use crate::addressing::Incarnation;

/// Highest usage of a log at the end, in percent.
const HEALED_PERCENT: u64 = 80;
/// Usage from which on an output log takes no outcomes, in percent.
const CLOSED_PERCENT: u64 = 90;

/// Owners whose frames were refused since their last append, and whether they ended.
#[derive(Debug, Default)]
pub struct Progress {
    refused: BTreeMap<(Incarnation, Partition), bool>,
}

impl Progress {
    /// A frame was refused by a full log.
    pub fn refused(&mut self, process: Incarnation, partition: Partition) {
        self.refused.entry((process, partition)).or_insert(false);
    }

    /// A frame with outcomes was stored.
    pub fn appended(&mut self, process: Incarnation, partition: Partition) {
        self.refused.remove(&(process, partition));
    }

    /// An ownership ended, because of a frame that could not be appended or for another reason.
    pub fn ended(&mut self, process: Incarnation, partition: Partition, append_failed: bool) {
        if let Some(gave_up) = self.refused.get_mut(&(process, partition)) {
            *gave_up |= append_failed;
        }
        self.refused
            .retain(|key, gave_up| *key != (process, partition) || *gave_up);
    }

    /// An owner reports that it is ready.
    ///
    /// # Errors
    /// When the log takes no outcomes, or refused the last frames and is still nearly full.
    pub fn reported_ready(
        &self,
        owner: (Incarnation, Partition),
        output: &LogUsage,
    ) -> CheckResult {
        let partition = owner.1;
        if output.bytes * 100 >= output.max_bytes * CLOSED_PERCENT {
            return Err(format!(
                "the owner of {partition} reports that it is ready, and its log holds {} of {} bytes",
                output.bytes, output.max_bytes
            ));
        }
        let is_full = output.bytes * 100 >= output.max_bytes * HEALED_PERCENT;
        if is_full && self.refused.get(&owner) == Some(&true) {
            return Err(format!(
                "the owner of {partition} reports that it is ready and has appended nothing since the log \
                 was full"
            ));
        }
        Ok(())
    }
}

/// Checks a partition after all faults.
///
/// # Errors
/// Says what is missing.
pub fn is_healed(partition: Partition, logs: [LogUsage; 2], is_ready: bool) -> CheckResult {
    if let Some(log) = logs
        .iter()
        .find(|log| log.bytes * 100 >= log.max_bytes * HEALED_PERCENT)
    {
        return Err(format!(
            "a log of {partition} holds {} of {} bytes from {} to {}",
            log.bytes, log.max_bytes, log.first_seq, log.last_seq
        ));
    }
    if !is_ready {
        return Err(format!("no owner of {partition} is ready"));
    }
    Ok(())
}
