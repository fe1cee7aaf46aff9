//! Committed rows are the state that the output log gives up to the cursor, which is that of the reference.

use std::collections::BTreeMap;
use std::rc::Rc;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::PartitionSnapshot;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{InputMark, OutputFrame, PinnedSet, Position};

use super::folded_entry::CheckResult;
use crate::reference_fold::ReferenceFold;

/// Commits between two comparisons; the last one is always compared.
const EVERY: u32 = 6;

/// The output logs, applied up to the cursors.
#[derive(Debug, Default)]
pub struct Rows {
    followed: BTreeMap<Partition, Followed>,
    /// All frames, trimmed or not.
    frames: BTreeMap<Partition, BTreeMap<u64, Rc<OutputFrame>>>,
}

#[derive(Debug, Default)]
struct Followed {
    out_seq: u64,
    state: PartitionState,
    commits: u32,
}

impl Rows {
    /// A frame was stored.
    pub fn output(&mut self, partition: Partition, seq: u64, frame: &Rc<OutputFrame>) {
        let frames = self.frames.entry(partition).or_default();
        frames.insert(seq, Rc::clone(frame));
    }

    /// The output log of a partition lost its end, and ends with this sequence.
    pub fn tail_lost(&mut self, partition: Partition, last: u64) {
        let frames = self.frames.entry(partition).or_default();
        frames.split_off(&(last + 1));
    }

    /// Checks the rows of a partition after a commit.
    ///
    /// # Errors
    /// Names the first difference between rows and log.
    pub fn committed(
        &mut self,
        partition: Partition,
        snapshot: impl FnOnce() -> PartitionSnapshot,
        out_seq: u64,
        pinned: &PinnedSet,
    ) -> CheckResult {
        let followed = self.followed.entry(partition).or_default();
        if out_seq <= followed.out_seq {
            // The rows were restored to an older state and are written again.
            *followed = Followed::default();
        }
        let frames = self.frames.entry(partition).or_default();
        followed.follow(partition, out_seq, frames, pinned)?;
        followed.commits += 1;
        if followed.commits.is_multiple_of(EVERY) {
            followed.compare(partition, snapshot(), pinned)?;
        }
        Ok(())
    }

    /// Compares the rows of a partition with the log.
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn compare(
        &self,
        partition: Partition,
        snapshot: PartitionSnapshot,
        pinned: &PinnedSet,
    ) -> CheckResult {
        match self.followed.get(&partition) {
            Some(followed) => followed.compare(partition, snapshot, pinned),
            None => Ok(()),
        }
    }
}

/// Compares rows with the reference alone, for lost frames.
///
/// # Errors
/// Names the first difference.
pub fn compare_with(
    reference: &ReferenceFold,
    partition: Partition,
    snapshot: PartitionSnapshot,
) -> CheckResult {
    let input = snapshot.cursor.as_ref().and_then(|cursor| cursor.input);
    let next = input.map_or(Position { seq: 1, index: 0 }, InputMark::next);
    let restored = PartitionState::restore(snapshot, &reference.pinned)
        .map_err(|error| format!("the rows of {partition} are no state: {error}"))?;
    let expected = reference.state_before(partition, next);
    if restored == expected {
        return Ok(());
    }
    Err(format!(
        "the rows of {partition} before {next:?} differ from the entries: {}",
        difference(&restored, &expected)
    ))
}

impl Followed {
    fn follow(
        &mut self,
        partition: Partition,
        to: u64,
        frames: &BTreeMap<u64, Rc<OutputFrame>>,
        pinned: &PinnedSet,
    ) -> CheckResult {
        if !frames.contains_key(&to) {
            return Err(format!("rows of {partition} are at {to} without a frame"));
        }
        for (seq, frame) in frames.range(self.out_seq + 1..=to) {
            for outcome in &frame.outcomes {
                self.state
                    .apply_outcome(outcome, pinned)
                    .map_err(|error| format!("output {seq}: {error}"))?;
            }
        }
        self.out_seq = to;
        Ok(())
    }

    fn compare(
        &self,
        partition: Partition,
        snapshot: PartitionSnapshot,
        pinned: &PinnedSet,
    ) -> CheckResult {
        let restored = PartitionState::restore(snapshot, pinned)
            .map_err(|error| format!("the rows of {partition} are no state: {error}"))?;
        if restored == self.state {
            return Ok(());
        }
        Err(format!(
            "the rows of {partition} at {} differ from the log: {}",
            self.out_seq,
            difference(&restored, &self.state)
        ))
    }
}

/// The first difference of two states as text.
pub fn difference(found: &PartitionState, expected: &PartitionState) -> String {
    if found.leader_epoch() != expected.leader_epoch() || found.clock() != expected.clock() {
        return format!(
            "epoch {} clock {:?}, expected {} {:?}",
            found.leader_epoch(),
            found.clock(),
            expected.leader_epoch(),
            expected.clock()
        );
    }
    if found.quarantines() != expected.quarantines() {
        return format!(
            "{:?}, expected {:?}",
            found.quarantines(),
            expected.quarantines()
        );
    }
    for (rollout_id, wanted) in expected.rollouts() {
        let Some(rollout) = found.rollout(rollout_id) else {
            return format!("{rollout_id} is missing");
        };
        for host in wanted.hosts.values() {
            let hostname = &host.record.hostname;
            if rollout.hosts.get(hostname) != Some(host) {
                let other = rollout.hosts.get(hostname);
                return format!("{hostname} is {other:?}, expected {host:?}");
            }
        }
        if rollout != wanted {
            return format!(
                "{rollout_id} is {:?} {:?}, expected {:?} {:?}",
                rollout.record, rollout.blocks, wanted.record, wanted.blocks
            );
        }
    }
    format!(
        "{} rollouts, expected {}",
        found.rollouts().len(),
        expected.rollouts().len()
    )
}
