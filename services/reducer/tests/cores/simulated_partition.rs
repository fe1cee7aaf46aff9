//! One partition in memory: both logs, the rows, the object store, and an owner.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use nixfleet_bus::{LastFrame, Message, PublishError, StreamIdentity};
use nixfleet_checkpoint::{Checkpoint, CheckpointIdentity, encode};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::snapshot::{Cursor, Origin, PartitionSnapshot};
use nixfleet_proto::{
    CheckpointRef, Entry, EntryBody, HostEvent, HostEventBody, InputMark, ManifestHash, Minutes,
    OnHealthFailure, OutputFrame, Pinned, PinnedManifest, PinnedSet, PlanAction, Producer,
    RolloutId, StoredAt, Timestamp,
};
use nixfleet_reducer::{
    CheckpointLimits, HydratedPartition, InputItem, LogBytes, ManifestFetch, Owner, OwnerConfig,
    OwnershipEnd, PartitionLogs, Takeover, TakeoverRequest, TakeoverResponse,
};

pub const CONFIG: OwnerConfig = OwnerConfig {
    turn_entries: 100,
    frame_bytes: usize::MAX,
    reserve_bytes: 0,
    hash_every_entries: 1,
    checkpoints: CheckpointLimits {
        min_log_bytes: 1,
        max_log_bytes: 1,
    },
};

pub fn at(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::minutes(minutes)
}

pub fn id(text: &str) -> RolloutId {
    text.parse().unwrap()
}

/// Pinned content of a rollout, whose id is also the hash of its manifest.
pub fn manifest(rollout: &str) -> PinnedManifest {
    let host = |name: &str| PinnedHost {
        hostname: name.parse().unwrap(),
        wave_index: 0,
        target_closure: format!("target-{name}").into(),
        staged: true,
    };
    PinnedManifest {
        rollout_id: id(rollout),
        pinned: std::sync::Arc::new(Pinned {
            on_health_failure: OnHealthFailure::Halt,
            waves: vec![PinnedWave {
                soak_minutes: Minutes::ZERO,
            }],
            host_set: vec![host("a"), host("b")],
            disruption_budgets: Vec::new(),
        }),
    }
}

pub fn planned(action: PlanAction) -> Entry {
    Entry::new(at(1), EntryBody::Plan { epoch: 1, action })
}

pub fn opening(rollout: &str) -> Entry {
    let rollout_id = id(rollout);
    planned(PlanAction::OpenRollout {
        channel: rollout_id.channel(),
        target_ref: rollout_id.target_ref(),
        manifest_hash: rollout.into(),
        rollout_id,
    })
}

pub fn acknowledged(rollout: &str, host: &str) -> Entry {
    Entry::new(
        at(2),
        EntryBody::HostEvent {
            rollout_id: id(rollout),
            hostname: host.parse().unwrap(),
            producer: Producer::Agent,
            event: HostEvent {
                seq: 1,
                body: HostEventBody::DispatchAck {
                    current_closure_at_dispatch: "before".into(),
                    received_at: at(2),
                },
            },
        },
    )
}

/// A partition whose input log holds one entry per message, starting at sequence `input_first`.
pub struct SimulatedPartition {
    pub input: Vec<Entry>,
    pub input_first: u64,
    pub created: Timestamp,
    /// Part of the message ids: another generation of the log has other ids.
    pub generation: u32,
    pub output: Vec<OutputFrame>,
    pub output_first: u64,
    pub rows: PartitionSnapshot,
    /// The object store by hash.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Requests of the last takeover, by name.
    pub requests: Vec<&'static str>,
}

impl SimulatedPartition {
    /// Creates a log of these entries behind a barrier of the planner.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let barrier = planned(PlanAction::Barrier {});
        Self {
            input: std::iter::once(barrier).chain(entries).collect(),
            input_first: 1,
            created: at(0),
            generation: 0,
            output: Vec::new(),
            output_first: 1,
            rows: PartitionSnapshot::default(),
            objects: BTreeMap::new(),
            requests: Vec::new(),
        }
    }

    pub fn out_seq(&self) -> u64 {
        self.output_first + self.output.len() as u64 - 1
    }

    /// Appends a frame if the log ends at the expected sequence.
    pub fn publish(&mut self, frame: &OutputFrame, expected: u64) -> Result<u64, PublishError> {
        let last = if self.output.is_empty() {
            0
        } else {
            self.out_seq()
        };
        if last != expected {
            return Err(PublishError::Fenced { expected, last });
        }
        self.output.push(frame.clone());
        Ok(self.out_seq())
    }

    pub fn take_over(&mut self) -> Result<HydratedPartition, OwnershipEnd> {
        let mut takeover = Takeover::new();
        self.requests.clear();
        loop {
            if takeover.next_request() == TakeoverRequest::Done {
                return Ok(takeover.finish().unwrap());
            }
            let answer = self.answer(takeover.next_request());
            self.requests.push(name(&takeover.next_request()));
            takeover.give(answer)?;
        }
    }

    /// The response to a request.
    pub fn answer(&mut self, request: TakeoverRequest) -> TakeoverResponse {
        match request {
            TakeoverRequest::Cursor => TakeoverResponse::Cursor(self.rows.cursor.clone()),
            TakeoverRequest::LastFrame => TakeoverResponse::LastFrame(self.last_frame()),
            TakeoverRequest::Announcement(seq) => {
                let is_held = (self.output_first..=self.out_seq()).contains(&seq);
                TakeoverResponse::Announcement(is_held.then(|| self.frame(seq).clone()))
            }
            TakeoverRequest::Checkpoint(named) => {
                TakeoverResponse::Checkpoint(match self.objects.get(&named.hash) {
                    Some(bytes) => Checkpoint::decode(bytes, 0, &named)
                        .map(Box::new)
                        .map_err(|error| error.to_string()),
                    None => Err("it is gone".to_owned()),
                })
            }
            TakeoverRequest::Logs(at) => TakeoverResponse::Logs(self.logs(at.iter().copied())),
            TakeoverRequest::Barrier { frame, expected } => {
                TakeoverResponse::Barrier(self.publish(&frame, expected))
            }
            TakeoverRequest::Snapshot => TakeoverResponse::Snapshot(self.rows.clone()),
            TakeoverRequest::Manifest(hash) => TakeoverResponse::Manifest(fetched(&hash)),
            TakeoverRequest::Frames { from, to } => TakeoverResponse::Frames(self.frames(from, to)),
            TakeoverRequest::Done => panic!("nothing is needed"),
        }
    }

    /// Takes the partition over, folds all entries and publishes one frame per entry.
    pub fn work(&mut self) -> Owner {
        let mut owner = Owner::new(self.take_over().unwrap(), LogBytes::default(), CONFIG);
        self.go_on(&mut owner);
        owner
    }

    pub fn go_on(&mut self, owner: &mut Owner) {
        loop {
            let next = owner.next();
            let place = usize::try_from(next.seq - self.input_first).unwrap();
            let Some(entry) = self.input.get(place) else {
                return;
            };
            let item = self.item(next.seq, entry.clone());
            owner.take(vec![item], 1);
            while let Some(hash) = owner.missing_manifest().cloned() {
                owner.add_manifest(hash.clone(), fetched(&hash)).unwrap();
            }
            owner.fold().unwrap();
            owner.add_hash();
            owner.write();
            let publish = owner.publish_queue().publish().unwrap();
            let published = self.publish(&publish.built.frame, publish.expected);
            owner.publish_queue().published(published).unwrap();
        }
    }

    /// Stores a checkpoint of the owner's state.
    pub fn store_checkpoint(&mut self, owner: &mut Owner) -> CheckpointRef {
        let unwritten = owner.begin_checkpoint().unwrap();
        let identity = CheckpointIdentity {
            partition: 0,
            output_created: unwritten.output_created,
            state_hash: unwritten.hash(),
        };
        let encoded = encode(&unwritten.rows(), identity).unwrap();
        let hash = encoded.reference.hash.clone();
        self.objects.insert(hash, encoded.bytes);
        encoded.reference
    }

    /// Stores and announces a checkpoint.
    pub fn checkpoint(&mut self, owner: &mut Owner) -> CheckpointRef {
        let stored = self.store_checkpoint(owner);
        assert!(!owner.checkpoint_stored(stored.clone()).is_empty());
        let publish = owner.publish_queue().publish().unwrap();
        let published = self.publish(&publish.built.frame, publish.expected);
        owner.publish_queue().published(published).unwrap();
        stored
    }

    /// Trims the output log before a sequence.
    pub fn trim(&mut self, first: u64) {
        let gone = usize::try_from(first - self.output_first).unwrap();
        self.output.drain(..gone);
        self.output_first = first;
    }

    pub fn item(&self, seq: u64, entry: Entry) -> InputItem {
        InputItem {
            mark: InputMark {
                seq,
                index: 0,
                of: 1,
            },
            stored_at: StoredAt::new(entry.received_at),
            msg_id: Some(self.msg_id(seq).into()),
            entry: Some(entry),
        }
    }

    /// Writes the rows of an applier at an output sequence.
    pub fn apply(&mut self, out_seq: u64) {
        let before = self.rows.cursor.take();
        let mut origin = before
            .as_ref()
            .map_or(Origin::of_log(self.output_first), |cursor| cursor.origin);
        let mut state = restored(std::mem::take(&mut self.rows));
        let from = before.as_ref().map_or(self.output_first, |c| c.out_seq + 1);
        let from = from.max(self.output_first);
        let mut cursor = before.unwrap_or_else(|| Cursor::empty(self.created));
        for seq in from..=out_seq {
            let frame = self.frame(seq).clone();
            origin.follow(&frame).unwrap();
            for outcome in &frame.outcomes {
                state
                    .apply_outcome_skipping_unknown(outcome, &pinned())
                    .unwrap();
            }
            cursor.input = frame.last_input.or(cursor.input);
            cursor.input_msg_id = frame.last_input_id.clone();
            cursor.epoch = frame.epoch;
        }
        cursor.out_seq = out_seq;
        cursor.stream_created = self.created;
        cursor.leader_epoch = state.leader_epoch();
        cursor.clock = state.clock();
        cursor.origin = origin;
        self.rows = rows(&state, cursor);
    }

    pub fn frame(&self, seq: u64) -> &OutputFrame {
        &self.output[usize::try_from(seq - self.output_first).unwrap()]
    }

    fn msg_id(&self, seq: u64) -> String {
        format!("{}/{seq}", self.generation)
    }

    fn last_frame(&self) -> Option<LastFrame> {
        let frame = self.output.last()?.clone();
        let (seq, msg_id) = (self.out_seq(), None);
        Some(LastFrame { seq, msg_id, frame })
    }

    fn logs(&self, at: impl Iterator<Item = u64>) -> PartitionLogs {
        let input_last = self.input_first + self.input.len() as u64 - 1;
        let held = at.filter(|seq| (self.input_first..=input_last).contains(seq));
        PartitionLogs {
            input: StreamIdentity {
                created: self.created,
                first_seq: self.input_first,
                last_seq: input_last,
            },
            output: StreamIdentity {
                created: self.created,
                first_seq: self.output_first,
                last_seq: self.out_seq(),
            },
            ids: held.map(|seq| (seq, self.msg_id(seq))).collect(),
        }
    }

    fn frames(&self, from: u64, to: u64) -> Vec<Message> {
        // At most two, as a reader returns batches.
        let some = (from..=to).take(2);
        some.map(|seq| Message {
            seq,
            subject: "fleet.out.00.writer".to_owned(),
            msg_id: None,
            traceparent: None,
            time: at(0),
            payload: serde_json::to_vec(self.frame(seq)).unwrap().into(),
            stored_bytes: 0,
        })
        .collect()
    }
}

pub fn fetched(hash: &ManifestHash) -> ManifestFetch {
    ManifestFetch::Pinned(manifest(hash.as_str()))
}

pub fn pinned() -> PinnedSet {
    let ids = ["stable@4f", "stable@5b"];
    ids.map(|id| (ManifestHash::from(id), manifest(id))).into()
}

fn restored(rows: PartitionSnapshot) -> PartitionState {
    PartitionState::restore(rows, &pinned()).unwrap()
}

fn rows(state: &PartitionState, cursor: Cursor) -> PartitionSnapshot {
    state.freeze().rows(cursor)
}

fn name(request: &TakeoverRequest) -> &'static str {
    match request {
        TakeoverRequest::Cursor => "cursor",
        TakeoverRequest::LastFrame => "last frame",
        TakeoverRequest::Announcement(_) => "announcement",
        TakeoverRequest::Checkpoint(_) => "checkpoint",
        TakeoverRequest::Logs(_) => "logs",
        TakeoverRequest::Barrier { .. } => "barrier",
        TakeoverRequest::Snapshot => "snapshot",
        TakeoverRequest::Manifest(_) => "manifest",
        TakeoverRequest::Frames { .. } => "frames",
        TakeoverRequest::Done => "nothing",
    }
}

/// Ids of the rollouts in a state.
pub fn known(state: &PartitionState) -> Vec<String> {
    state.rollouts().keys().map(ToString::to_string).collect()
}
