//! The rows are the state: what an applier committed is what the output log gives up to its cursor,
//! which in turn is the reference.

use std::collections::BTreeMap;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::PartitionSnapshot;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{InputMark, PinnedSet, Position};

use super::fact::Found;
use crate::model::{Broker, Log};
use crate::reference::Reference;

/// Commits between two comparisons; the last one is always compared.
const EVERY: u32 = 6;

/// The output logs, followed as far as the cursors.
#[derive(Debug, Default)]
pub struct Rows {
    followed: BTreeMap<Partition, Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    out_seq: u64,
    state: PartitionState,
    commits: u32,
}

impl Rows {
    /// Looks at the rows of a partition after a commit.
    ///
    /// # Errors
    /// Says where the rows and the log part.
    pub fn committed(
        &mut self,
        partition: Partition,
        snapshot: impl FnOnce() -> PartitionSnapshot,
        (out_seq, broker): (u64, &Broker),
        pinned: &PinnedSet,
    ) -> Found {
        let followed = self.followed.entry(partition).or_default();
        if out_seq <= followed.out_seq {
            // The rows were replaced by older ones, or by none, and are written again.
            *followed = Followed::default();
        }
        followed.follow(partition, out_seq, broker, pinned)?;
        followed.commits += 1;
        if followed.commits.is_multiple_of(EVERY) {
            followed.compare(partition, snapshot(), pinned)?;
        }
        Ok(())
    }

    /// Compares now.
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn compare(
        &self,
        partition: Partition,
        snapshot: PartitionSnapshot,
        pinned: &PinnedSet,
    ) -> Found {
        match self.followed.get(&partition) {
            Some(followed) => followed.compare(partition, snapshot, pinned),
            None => Ok(()),
        }
    }
}

/// Holds rows against the reference alone: the frames they were written from are lost.
///
/// # Errors
/// Says where they part.
pub fn compare_with(
    reference: &Reference,
    partition: Partition,
    snapshot: PartitionSnapshot,
) -> Found {
    let input = snapshot.cursor.as_ref().and_then(|cursor| cursor.input);
    let next = input.map_or(Position { seq: 1, index: 0 }, InputMark::next);
    let restored = PartitionState::restore(snapshot, &reference.pinned)
        .map_err(|error| format!("the rows of {partition} are no state: {error}"))?;
    let expected = reference.state_before(partition, next);
    if restored == expected {
        return Ok(());
    }
    Err(format!(
        "the rows of {partition} before {next:?} are not what the entries give: {}",
        difference(&restored, &expected)
    ))
}

impl Followed {
    fn follow(
        &mut self,
        partition: Partition,
        to: u64,
        broker: &Broker,
        pinned: &PinnedSet,
    ) -> Found {
        let Some(stream) = broker.stream(Log::Output(partition)) else {
            return Err(format!("rows of {partition} were written without a log"));
        };
        let from = (self.out_seq + 1).max(stream.first_seq());
        for message in stream.from(from, usize::MAX).take_while(|m| m.seq <= to) {
            let Some(frame) = message.output() else {
                return Err(format!(
                    "output {} of {partition} cannot be read",
                    message.seq
                ));
            };
            for outcome in &frame.outcomes {
                self.state
                    .absorb(outcome, pinned)
                    .map_err(|error| format!("output {}: {error}", message.seq))?;
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
    ) -> Found {
        let restored = PartitionState::restore(snapshot, pinned)
            .map_err(|error| format!("the rows of {partition} are no state: {error}"))?;
        if restored == self.state {
            return Ok(());
        }
        Err(format!(
            "the rows of {partition} at {} are not what the log gives: {}",
            self.out_seq,
            difference(&restored, &self.state)
        ))
    }
}

/// The first difference of two states, for people.
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
                "{rollout_id} is {:?} {:?} {:?}, expected {:?} {:?} {:?}",
                rollout.record,
                rollout.blocks,
                rollout.probe_failures,
                wanted.record,
                wanted.blocks,
                wanted.probe_failures
            );
        }
    }
    format!(
        "{} rollouts, expected {}",
        found.rollouts().len(),
        expected.rollouts().len()
    )
}
