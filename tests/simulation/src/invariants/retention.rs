//! Only messages that the last but one checkpoint covers and that are applied and archived are trimmed, and both
//! announced checkpoints are stored. Their state is that of the reference fold at their position.
//!
//! Objects that a fault deleted or changed are not checked.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints, InputMark, OutputFrame, PinnedSet, Position};

use super::folded_entry::CheckResult;
use super::rows::difference;
use crate::reference_fold::ReferenceFold;
use crate::simulated_servers::LogId;
use crate::simulated_servers::object_store::ObjectStore;

/// Checkpoints, rows and archives of all partitions.
#[derive(Debug, Default)]
pub struct Retention {
    partitions: BTreeMap<Partition, RetainedLogs>,
    archived: BTreeMap<LogId, u64>,
    /// Hashes of objects that a fault lost or changed.
    lost: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct RetainedLogs {
    /// Announcements in the log, by sequence.
    announced: BTreeMap<u64, Checkpoints>,
    /// Last inputs of all frames.
    covered: BTreeMap<u64, Option<InputMark>>,
    /// Highest applied output and input sequence.
    applied: (u64, u64),
    /// The output log lost its end, and possibly announcements.
    is_torn: bool,
}

impl Retention {
    /// Checks a frame that was stored.
    ///
    /// # Errors
    /// Says what is wrong with the checkpoint that it announces.
    pub fn output(
        &mut self,
        (partition, seq): (Partition, u64),
        frame: &OutputFrame,
        (objects, reference): (&ObjectStore, &ReferenceFold),
    ) -> CheckResult {
        let kept = self.partitions.entry(partition).or_default();
        kept.covered.insert(seq, frame.last_input);
        let before = kept
            .announced
            .last_key_value()
            .map(|(_, pair)| pair.clone());
        let Some(pair) = &frame.checkpoints else {
            return Ok(());
        };
        kept.announced.insert(seq, pair.clone());
        if kept.is_torn {
            return Ok(());
        }
        let Some(newest) = &pair.last else {
            return Err(format!(
                "output {seq} of {partition} announces no checkpoint"
            ));
        };
        if pair.previous != before.and_then(|pair| pair.last) {
            return Err(format!(
                "output {seq} of {partition} announces another checkpoint before {}",
                newest.hash
            ));
        }
        let covered = kept.covered.get(&newest.out_seq).copied();
        if newest.out_seq >= seq || covered != Some(newest.input) {
            return Err(format!(
                "the checkpoint at {} of {partition} covers {:?}, its frame {covered:?}",
                newest.out_seq, newest.input
            ));
        }
        self.holds(partition, objects)?;
        if self.is_intact(&newest.hash) {
            restores(partition, newest, objects, reference)?;
        }
        Ok(())
    }

    /// Checks a trim of a log before a sequence.
    ///
    /// # Errors
    /// Says who needs the trimmed messages.
    pub fn trimmed(&self, log: LogId, first_kept: u64) -> CheckResult {
        let kept = self.partitions.get(&log.partition());
        if kept.is_some_and(|kept| kept.is_torn) {
            // Rows and archive may have messages that were lost since.
            return Ok(());
        }
        let pair = kept.and_then(|kept| Some(kept.announced.last_key_value()?.1));
        let previous = pair.and_then(|pair| pair.previous.as_ref());
        let (applied, applied_input) = kept.map_or((0, 0), |kept| kept.applied);
        // The last covered input message identifies the log.
        let (checkpoint, applied) = match log {
            LogId::Input(_) => {
                let input = previous.and_then(|previous| previous.input);
                (
                    input.map_or(0, |mark| mark.seq - 1),
                    applied_input.max(1) - 1,
                )
            }
            LogId::Output(_) => (previous.map_or(0, |previous| previous.out_seq), applied),
        };
        let archived = self.archived.get(&log).copied().unwrap_or(0);
        let needs = [
            ("the last but one checkpoint covers", checkpoint),
            ("rows are written of", applied),
            ("the archive has", archived),
        ];
        match needs.into_iter().find(|(_, upto)| first_kept > upto + 1) {
            Some((who, upto)) => Err(format!(
                "{log} was trimmed before {first_kept}, and {who} what is before {}",
                upto + 1
            )),
            None => Ok(()),
        }
    }

    /// Checks that the two checkpoints that were announced last are stored.
    ///
    /// # Errors
    /// Names the one that is not.
    pub fn holds(&self, partition: Partition, objects: &ObjectStore) -> CheckResult {
        let Some(kept) = self.partitions.get(&partition).filter(|kept| !kept.is_torn) else {
            return Ok(());
        };
        let Some((seq, pair)) = kept.announced.last_key_value() else {
            return Ok(());
        };
        let mut named = pair.newest_first();
        let missing =
            named.find(|named| self.is_intact(&named.hash) && !objects.holds(partition, named));
        match missing {
            Some(named) => Err(format!(
                "checkpoint {} of {partition}, which output {seq} announced, is not stored",
                named.hash
            )),
            None => Ok(()),
        }
    }

    /// Rows were written.
    pub fn applied(&mut self, partition: Partition, cursor: &Cursor) {
        let kept = self.partitions.entry(partition).or_default();
        let input = cursor.input.map_or(0, |mark| mark.seq);
        let (out_seq, before) = kept.applied;
        kept.applied = (out_seq.max(cursor.out_seq), before.max(input));
    }

    /// A log is archived up to a sequence.
    pub fn archived(&mut self, log: LogId, seq: u64) {
        let archived = self.archived.entry(log).or_default();
        *archived = seq.max(*archived);
    }

    /// A fault lost or changed an object.
    pub fn lost(&mut self, hash: &str) {
        self.lost.insert(hash.to_owned());
    }

    /// True when no fault touched an object.
    pub fn is_intact(&self, hash: &str) -> bool {
        !self.lost.contains(hash)
    }

    /// A log of a partition lost its end; the output log now ends with this sequence.
    pub fn tail_lost(&mut self, partition: Partition, output: u64) {
        let kept = self.partitions.entry(partition).or_default();
        kept.announced.split_off(&(output + 1));
        kept.covered.split_off(&(output + 1));
        kept.is_torn = true;
    }
}

/// Checks that the state of a checkpoint is that of the entries before its position.
fn restores(
    partition: Partition,
    named: &CheckpointRef,
    objects: &ObjectStore,
    reference: &ReferenceFold,
) -> CheckResult {
    let fault = |fault: String| format!("checkpoint {} of {partition}: {fault}", named.hash);
    let bytes = objects.get(partition, named);
    let bytes = bytes.ok_or_else(|| fault("it is not stored".to_owned()))?;
    let read = Checkpoint::decode(bytes, partition.number(), named);
    let read = read.map_err(|error| fault(error.to_string()))?;
    let restored = PartitionState::restore(read.rows, &PinnedSet::new());
    let restored = restored.map_err(|error| fault(error.to_string()))?;
    let first = Position { seq: 1, index: 0 };
    let expected = reference.state_before(partition, named.input.map_or(first, InputMark::next));
    if restored == expected {
        return Ok(());
    }
    Err(fault(difference(&restored, &expected)))
}
