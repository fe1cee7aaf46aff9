//! Replays the archive of one partition, and decides each entry again.

mod reevaluation;

use std::borrow::Cow;
use std::sync::Arc;

use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::Origin;
use nixfleet_proto::{
    Checkpoints, Decision, Entry, HostRecord, InputMark, ManifestHash, Outcome, OutputFrame,
    PinnedManifest, PinnedSet, Position, RolloutId, StoredAt, Timestamp,
};

use crate::deferred_records::DeferredRecords;
use crate::replay_error::ReplayError;
use crate::row_comparison::Difference;

/// One item of the archived input: an entry, or an undecodable message.
#[derive(Debug, Clone, PartialEq)]
pub struct InputItem {
    /// Position, with the number of entries of its message.
    pub mark: InputMark,
    /// When the broker stored its message.
    pub stored_at: StoredAt,
    /// Absent for an undecodable message.
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

/// The replayed and checked part of the history of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The history is complete: the archive begins with the first frame of the partition, or with a
    /// checkpoint of a complete state.
    pub is_complete: bool,
    /// Output frames replayed.
    pub frames: u64,
    /// Applied outcomes.
    pub outcomes: u64,
    /// Entries decided again and compared with their outcome.
    pub decided: u64,
    /// Outcomes that could not be decided again: their entry is not archived, or depends on earlier
    /// history.
    pub unchecked: u64,
    /// Compared state hashes of owners.
    pub hashes: u64,
}

/// The replayed state of a partition.
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
    /// True after the first planner epoch: before, the fenced leaders are unknown.
    knows_leader: bool,
    differences: Vec<Difference>,
}

impl Replay {
    /// A replay before the first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// A replay that continues from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint has no valid state, or another state than its owner had.
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self, String> {
        let cursor = checkpoint.rows.cursor.clone().ok_or("it has no cursor")?;
        let state = PartitionState::restore(checkpoint.rows, &PinnedSet::new());
        let state = state.map_err(|fault| fault.to_string())?;
        let (found, expected) = (state.hash(), checkpoint.state_hash);
        if found != expected {
            return Err(format!(
                "its state has the hash {found} instead of {expected}"
            ));
        }
        Ok(Self {
            state,
            coverage: Coverage {
                is_complete: cursor.origin.own <= 1,
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

    /// Manifests that must be [pinned](Self::pin) before this frame is applied.
    pub fn manifests_named(frame: &OutputFrame) -> impl Iterator<Item = &ManifestHash> {
        frame
            .outcomes
            .iter()
            .filter_map(|outcome| match &outcome.decision {
                Decision::Accepted(accepted) => Some(&accepted.opened.as_ref()?.manifest_hash),
                Decision::Rejected(_) => None,
            })
    }

    /// True when the manifest is pinned.
    pub fn is_pinned(&self, hash: &ManifestHash) -> bool {
        self.pinned.contains_key(hash)
    }

    /// Adds the pinned terms of a manifest.
    pub fn pin(&mut self, hash: ManifestHash, pinned: PinnedManifest) {
        self.pinned.insert(hash, pinned);
    }

    /// First and last folded position of a frame; absent for a takeover.
    pub fn folded(frame: &OutputFrame) -> Option<(Position, InputMark)> {
        Some((frame.first_input?, frame.last_input?))
    }

    /// Applies the next frame with its archived input: decides each entry again on the state before it, then
    /// applies the published outcome, whether or not both agree.
    ///
    /// `input` is the archived input of the frame, in order.
    ///
    /// # Errors
    /// [`ReplayError`]; drop the replay then.
    pub fn apply_frame(
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
        let records = DeferredRecords::of(&frame.outcomes);
        let mut lacks_records = false;
        for (index, outcome) in frame.outcomes.iter().enumerate() {
            while items
                .next_if(|item| item.position() < outcome.position)
                .is_some()
            {}
            let item = items.next_if(|item| item.position() == outcome.position);
            let decided = self.decide(outcome, item.filter(|_| !lacks_records));
            let deferred = decided.map(|mut decided| {
                let deferred = records.take_deferred(index, &mut decided);
                self.compare(&decided, outcome);
                deferred
            });
            lacks_records |= deferred.is_none() && records.may_omit(index);
            self.follow(out_seq, outcome, deferred.unwrap_or_default())?;
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

    /// Sequence of the last applied frame; 0 before the first.
    pub fn out_seq(&self) -> u64 {
        self.out_seq
    }

    /// Epoch of the last applied frame.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Last covered input.
    pub fn last_input(&self) -> Option<InputMark> {
        self.last_input
    }

    /// Message id of the last covered input, when its frame has one.
    pub fn last_input_id(&self) -> Option<&str> {
        self.last_input_id.as_deref()
    }

    /// Origin of the state.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Checkpoints announced up to the last frame.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// First position of the replay; absent before the first frame.
    pub fn begins_at(&self) -> Option<Position> {
        self.begins_at
    }

    /// Fold time after the last entry.
    pub fn clock(&self) -> Option<Timestamp> {
        self.state.clock()
    }

    /// Coverage of the replay.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Differences between published and replayed outcomes; returns each once.
    pub fn differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

    /// True when the state has the complete rollout.
    pub fn knows(&self, rollout_id: &RolloutId) -> bool {
        self.coverage.is_complete || self.state.rollout(rollout_id).is_some()
    }

    /// Checks that the frame continues the one before.
    fn check_chain(&mut self, out_seq: u64, frame: &OutputFrame) -> Result<(), ReplayError> {
        if self.out_seq == 0 {
            self.origin = Origin::of_log(out_seq);
            self.coverage.is_complete = out_seq == 1;
            self.last_input = match frame.first_input {
                Some(_) => None,
                None => frame.last_input,
            };
            return Ok(());
        }
        let continues = match frame.first_input {
            // A takeover has its start: above the lost input, when the log was recreated.
            None => frame.last_input.map(InputMark::next) >= self.last_input.map(InputMark::next),
            // A recreated log continues above.
            Some(first) => self.last_input.is_none_or(|last| first >= last.next()),
        };
        if continues {
            return Ok(());
        }
        Err(ReplayError::Gap {
            out_seq,
            covered: self.last_input,
            next: frame.first_input.or(frame.last_input.map(InputMark::next)),
        })
    }

    /// Applies an outcome with its deferred records.
    fn follow(
        &mut self,
        out_seq: u64,
        outcome: &Outcome,
        deferred: Vec<Arc<HostRecord>>,
    ) -> Result<(), ReplayError> {
        let mut outcome = Cow::Borrowed(outcome);
        if !deferred.is_empty() {
            let hosts = [outcome.decision.host_records(), &deferred].concat();
            outcome.to_mut().decision.replace_host_records(hosts);
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
