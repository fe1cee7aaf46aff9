//! Following the archive of one partition, and deciding each entry again beside it.

mod reevaluation;

use std::borrow::Cow;
use std::sync::Arc;

use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::Origin;
use nixfleet_proto::{
    Checkpoints, Decision, Entry, HostRecord, InputMark, ManifestHash, Outcome, OutputFrame,
    PinnedManifest, PinnedSet, Position, RolloutId, Timestamp,
};

use crate::deferred_records::DeferredRecords;
use crate::replay_error::ReplayError;
use crate::row_comparison::Difference;

/// One item of the archived input: an entry, or a message that nobody could read.
#[derive(Debug, Clone, PartialEq)]
pub struct InputItem {
    /// Where it is.
    pub mark: InputMark,
    /// Absent for a message that nobody could read.
    pub entry: Option<Entry>,
}

impl InputItem {
    /// Its position.
    pub fn position(&self) -> Position {
        Position {
            seq: self.mark.seq,
            index: self.mark.index,
        }
    }
}

/// How much of the partition's history the archive holds, and how much of it was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Nothing is missing: the archive begins with the first frame of the partition, or with a checkpoint
    /// of an owner that lacked nothing.
    pub is_whole: bool,
    /// Output frames replayed.
    pub frames: u64,
    /// Outcomes followed.
    pub outcomes: u64,
    /// Entries decided again and compared with their outcome.
    pub decided: u64,
    /// Outcomes that could not be decided again: their entry is not archived, or they speak of what
    /// lies before the archive.
    pub unchecked: u64,
    /// State hashes of owners compared with the state here.
    pub hashes: u64,
}

/// The state of a partition on its way through the archive.
#[derive(Debug, Default)]
pub struct Replay {
    state: PartitionState,
    pinned: PinnedSet,
    coverage: Coverage,
    origin: Origin,
    checkpoints: Checkpoints,
    last_input: Option<InputMark>,
    last_input_id: Option<String>,
    begins_at: Option<Position>,
    out_seq: u64,
    epoch: u64,
    /// A planner epoch was seen: before that it is not known whom the fold fences.
    knows_leader: bool,
    differences: Vec<Difference>,
}

impl Replay {
    /// A replay that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A replay that goes on from a checkpoint.
    ///
    /// # Errors
    /// Says why the checkpoint gives no state, or another one than its owner had.
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self, String> {
        let cursor = checkpoint.rows.cursor.clone().ok_or("it has no position")?;
        let state = PartitionState::restore(checkpoint.rows, &PinnedSet::new());
        let state = state.map_err(|fault| fault.to_string())?;
        let (found, expected) = (state.hash(), checkpoint.state_hash);
        if found != expected {
            return Err(format!("it gives the state {found} instead of {expected}"));
        }
        Ok(Self {
            state,
            coverage: Coverage {
                is_whole: cursor.origin.own <= 1,
                ..Coverage::default()
            },
            begins_at: cursor.input.map(InputMark::next),
            origin: cursor.origin,
            checkpoints: cursor.checkpoints,
            last_input: cursor.input,
            last_input_id: cursor.input_msg_id,
            out_seq: cursor.out_seq,
            epoch: cursor.epoch,
            knows_leader: cursor.leader_epoch > 0,
            ..Self::default()
        })
    }

    /// The manifests that must be [pinned](Self::pin) before this frame is taken.
    pub fn manifests_named(frame: &OutputFrame) -> impl Iterator<Item = &ManifestHash> {
        frame
            .outcomes
            .iter()
            .filter_map(|outcome| match &outcome.decision {
                Decision::Accepted(accepted) => Some(&accepted.opened.as_ref()?.manifest_hash),
                Decision::Rejected(_) => None,
            })
    }

    /// True when what this manifest pins is at hand.
    pub fn is_pinned(&self, hash: &ManifestHash) -> bool {
        self.pinned.contains_key(hash)
    }

    /// Gives what a manifest pins.
    pub fn pin(&mut self, hash: ManifestHash, pinned: PinnedManifest) {
        self.pinned.insert(hash, pinned);
    }

    /// The positions this frame folds, first and last; absent for a takeover.
    pub fn folded(frame: &OutputFrame) -> Option<(Position, InputMark)> {
        Some((frame.first_input?, frame.last_input?))
    }

    /// Takes the next frame with the archived input it folds: each entry is decided again on the
    /// state before it, then the published outcome is followed, whatever the decision was.
    ///
    /// `input` is what the archive holds of the positions the frame covers, in order.
    ///
    /// # Errors
    /// [`ReplayError`]; the replay must be dropped then.
    pub fn take(
        &mut self,
        out_seq: u64,
        frame: &OutputFrame,
        input: &[InputItem],
    ) -> Result<(), ReplayError> {
        self.check_chain(out_seq, frame)?;
        self.origin
            .follow(frame)
            .map_err(ReplayError::OriginConflict)?;
        self.checkpoints.follow(frame.checkpoints.as_ref());
        self.find_dropped(out_seq, frame, input);
        let mut items = input.iter().peekable();
        let later = DeferredRecords::of(&frame.outcomes);
        let mut lacks_records = false;
        for (place, outcome) in frame.outcomes.iter().enumerate() {
            while items
                .next_if(|item| item.position() < outcome.position)
                .is_some()
            {}
            let item = items.next_if(|item| item.position() == outcome.position);
            let entry = item.and_then(|item| item.entry.as_ref());
            let decided = self.decide(outcome, entry.filter(|_| !lacks_records));
            let left = decided.map(|mut decided| {
                let left = later.take_left(place, &mut decided);
                self.compare(&decided, outcome);
                left
            });
            lacks_records |= left.is_none() && later.may_lack(place);
            self.follow(out_seq, outcome, left.unwrap_or_default())?;
        }
        self.check_hash(out_seq, frame);
        let before = self.last_input.map(InputMark::next);
        self.begins_at = self.begins_at.or(before).or(frame.first_input);
        self.coverage.frames += 1;
        self.last_input = frame.last_input.or(self.last_input);
        if frame.first_input.is_some() {
            self.last_input_id.clone_from(&frame.last_input_id);
        }
        (self.out_seq, self.epoch) = (out_seq, frame.epoch);
        Ok(())
    }

    /// The state after the last frame.
    pub fn state(&self) -> &PartitionState {
        &self.state
    }

    /// The last output frame taken; 0 when there is none.
    pub fn out_seq(&self) -> u64 {
        self.out_seq
    }

    /// Epoch of the owner that wrote it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last input covered.
    pub fn last_input(&self) -> Option<InputMark> {
        self.last_input
    }

    /// Message id of the message it is in, when its owner gave one.
    pub fn last_input_id(&self) -> Option<&str> {
        self.last_input_id.as_deref()
    }

    /// What the state was built from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The checkpoints that were announced up to the last frame.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// The first position the archive covers; absent before any.
    pub fn begins_at(&self) -> Option<Position> {
        self.begins_at
    }

    /// Fold time after the last entry.
    pub fn clock(&self) -> Option<Timestamp> {
        self.state.clock()
    }

    /// What was replayed and checked.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The manifests of rollouts that are still in the state.
    pub fn manifests_used(&self) -> impl Iterator<Item = &ManifestHash> {
        let rollouts = self.state.rollouts().values();
        rollouts.map(|rollout| &rollout.manifest_hash)
    }

    /// Where published outcomes differ from what the fold makes of their entries; each is given once.
    pub fn differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

    /// True when the state knows this rollout as completely as its owner did.
    pub fn knows(&self, rollout_id: &RolloutId) -> bool {
        self.coverage.is_whole || self.state.rollout(rollout_id).is_some()
    }

    /// Each frame goes on where the one before ended; a takeover says where that was.
    fn check_chain(&mut self, out_seq: u64, frame: &OutputFrame) -> Result<(), ReplayError> {
        if self.out_seq == 0 {
            self.origin = Origin::of_log(out_seq);
            self.coverage.is_whole = out_seq == 1;
            self.last_input = match frame.first_input {
                Some(_) => None,
                None => frame.last_input,
            };
            return Ok(());
        }
        let goes_on = match frame.first_input {
            // A takeover says where it goes on: in a log created anew that is above what was lost.
            None => frame.last_input.map(InputMark::next) >= self.last_input.map(InputMark::next),
            // A log created anew goes on above.
            Some(first) => self.last_input.is_none_or(|last| first >= last.next()),
        };
        if goes_on {
            return Ok(());
        }
        Err(ReplayError::Gap {
            out_seq,
            covered: self.last_input,
            next: frame.first_input.or(frame.last_input.map(InputMark::next)),
        })
    }

    /// Follows an outcome with the records that it left to later ones.
    fn follow(
        &mut self,
        out_seq: u64,
        outcome: &Outcome,
        left: Vec<Arc<HostRecord>>,
    ) -> Result<(), ReplayError> {
        let mut outcome = Cow::Borrowed(outcome);
        if !left.is_empty() {
            let records = [outcome.decision.host_records(), &left].concat();
            outcome.to_mut().decision.replace_host_records(records);
        }
        if let Decision::Accepted(accepted) = &outcome.decision {
            self.knows_leader |= accepted.leader_epoch.is_some();
        }
        let followed = if self.origin.is_partial() {
            self.state
                .apply_outcome_skipping_unknown(&outcome, &self.pinned)
        } else {
            self.state.apply_outcome(&outcome, &self.pinned)
        };
        followed.map_err(|fault| ReplayError::Outcome { out_seq, fault })?;
        Ok(())
    }

    fn check_hash(&mut self, out_seq: u64, frame: &OutputFrame) {
        let (Some(expected), false) = (&frame.state_hash, self.origin.is_partial()) else {
            return;
        };
        self.coverage.hashes += 1;
        let actual = self.state.hash();
        if actual != *expected {
            self.differences.push(Difference {
                table: "state",
                key: vec![out_seq.to_string()],
                column: "stateHash".to_owned(),
                expected: Some(actual.into()),
                found: Some(expected.clone().into()),
            });
        }
    }
}
