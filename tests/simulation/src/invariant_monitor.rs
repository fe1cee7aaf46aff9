//! Passes what happens to the invariants, and keeps the first violation.

mod log_counts;
mod retention;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::Dispatch;
use nixfleet_proto::{ClosureHash, Entry, Hostname, PlanAction, Position, RolloutId, StoredAt};

use crate::addressing::Service;
use crate::engine::Time;
use crate::invariants::acknowledged::Acknowledged;
use crate::invariants::budgets::Budgets;
use crate::invariants::duplicates::AcceptedEvents;
use crate::invariants::edges::Edges;
use crate::invariants::epochs::Epochs;
use crate::invariants::folded_entry::{CheckResult, FoldedEntry};
use crate::invariants::halts::Halts;
use crate::invariants::leaders::Leaders;
use crate::invariants::leases::OneHolder;
use crate::invariants::lost_tails::{self, InputAction, LostTails};
use crate::invariants::progress::Progress;
use crate::invariants::recoveries::Recoveries;
use crate::invariants::retention::Retention;
use crate::invariants::rows::{Rows, compare_with, difference};
use crate::invariants::waves::Waves;
use crate::invariants::{clocks, cursors, freshness, replay};
use crate::reference_fold::ReferenceFold;
use crate::scenario::Shape;
use crate::signed_release::Release;
use crate::simulated_servers::object_store::ObjectStore;
use crate::simulated_servers::stream::{StoredMessage, Stream};
use crate::simulated_servers::{Broker, Database, LogId};

pub use log_counts::LogCounts;

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What is wrong.
    pub message: String,
}

/// All invariants with their data.
#[derive(Debug)]
pub struct InvariantMonitor {
    /// The folded logs.
    pub reference: ReferenceFold,
    /// Published releases.
    pub releases: Vec<Rc<Release>>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// Input entries folded.
    pub entries: u64,
    /// When broker and database were lost; takeovers that began before belong to another history.
    pub lost_at: Option<Time>,
    budgets: Budgets,
    halts: Halts,
    waves: Waves,
    edges: Edges,
    accepted_events: AcceptedEvents,
    epochs: Epochs,
    lost_tails: LostTails,
    rows: Rows,
    recoveries: Recoveries,
    leaders: Leaders,
    acknowledged: Acknowledged,
    one_holder: OneHolder,
    retention: Retention,
    progress: Progress,
    /// Counts of trims, refusals and checkpoints.
    pub counts: LogCounts,
    dispatched: BTreeMap<(RolloutId, Hostname), ClosureHash>,
    stopped: BTreeSet<Partition>,
    /// Entries were lost and the logs go on without them, so that decisions are not checked.
    is_rewound: bool,
}

impl InvariantMonitor {
    /// Invariants of a new run.
    pub fn new(shape: &Shape) -> Self {
        Self {
            reference: ReferenceFold::default(),
            releases: Vec::new(),
            violation: None,
            entries: 0,
            lost_at: None,
            budgets: Budgets::default(),
            halts: Halts::default(),
            waves: Waves::default(),
            edges: Edges::new(shape.partitions),
            accepted_events: AcceptedEvents::default(),
            epochs: Epochs::default(),
            lost_tails: LostTails::default(),
            rows: Rows::default(),
            recoveries: Recoveries::default(),
            leaders: Leaders::default(),
            acknowledged: Acknowledged::default(),
            one_holder: OneHolder::default(),
            retention: Retention::default(),
            progress: Progress::default(),
            counts: LogCounts::default(),
            dispatched: BTreeMap::new(),
            stopped: BTreeSet::new(),
            is_rewound: false,
        }
    }

    /// A release was published.
    pub fn published(&mut self, release: &Rc<Release>) {
        self.reference.pinned.extend(release.pinned.clone());
        self.releases.push(Rc::clone(release));
    }

    /// A message was stored in an input log.
    pub fn input_stored(&mut self, partition: Partition, message: &StoredMessage) {
        let Some(frame) = message.input().cloned() else {
            return;
        };
        let process = message
            .msg_id
            .rsplit_once('/')
            .map_or("", |(process, _)| process);
        for entry in &frame.entries {
            self.entries += 1;
            self.acknowledged.record(entry, message.time);
        }
        let reference = &mut self.reference;
        match self.lost_tails.input(partition, message, reference) {
            InputAction::Fold => {}
            InputAction::Skip => return,
            InputAction::Resume => return self.rewind(partition, message.seq),
        }
        for (entry, index) in frame.entries.iter().zip(0_u32..) {
            let seq = message.seq;
            let position = Position { seq, index };
            let stored = (position, StoredAt::new(message.time));
            let outcome = self.reference.fold(partition, stored, entry).clone();
            let folded = FoldedEntry {
                partition,
                entry,
                outcome: &outcome,
                reference: &self.reference,
                releases: &self.releases,
            };
            record_dispatch(&mut self.dispatched, folded);
            let duplicates = self.accepted_events.check(folded);
            let clocks = clocks::check(folded, message.time);
            let decided = [
                ("recoveries", self.recoveries.check(folded, process)),
                ("leaders", self.leaders.check(folded, process)),
                ("budgets", self.budgets.check(folded)),
                ("halts", self.halts.check(folded)),
                ("waves", self.waves.check(folded)),
                ("edges", self.edges.check(folded)),
                ("freshness", freshness::check(folded)),
            ];
            self.record("duplicates", duplicates);
            self.record("clocks", clocks);
            // Decisions may rest on lost entries for a while.
            for (invariant, result) in decided {
                if !self.is_rewound {
                    self.record(invariant, result);
                }
            }
        }
    }

    /// A message was stored in an output log, beside an input log that begins at `begins`.
    pub fn output_stored(
        &mut self,
        (partition, begins): (Partition, u64),
        message: &StoredMessage,
        objects: &ObjectStore,
    ) {
        let Some(frame) = message.output().cloned() else {
            let unreadable = format!("output {} of {partition} cannot be read", message.seq);
            return self.record("replay", Err(unreadable));
        };
        self.rows.output(partition, message.seq, &frame);
        let epochs = self.epochs.check(partition, &frame, begins);
        self.record("epochs", epochs);
        let tails = self
            .lost_tails
            .output(partition, &frame, &mut self.reference);
        self.record("lost_tails", tails);
        let replay_result = replay::check(partition, &frame, &self.reference);
        self.record("replay", replay_result);
        self.announced((partition, message.seq), &frame, objects);
    }

    /// A turn was committed.
    pub fn committed(
        &mut self,
        partition: Partition,
        (before, after): (Option<&Cursor>, &Cursor),
        snapshot: impl FnOnce() -> PartitionSnapshot,
    ) {
        self.record("cursors", cursors::check(before, after));
        self.retention.applied(partition, after);
        let tails = self
            .lost_tails
            .applied(partition, after, &mut self.reference);
        self.record("lost_tails", tails);
        if self.lost_tails.touches(partition) {
            let rows = compare_with(&self.reference, partition, snapshot());
            return self.record("rows", rows);
        }
        let pinned = &self.reference.pinned;
        let rows = self
            .rows
            .committed(partition, snapshot, after.out_seq, pinned);
        self.record("rows", rows);
    }

    /// An agent was told that its event is durable.
    pub fn acknowledged(&mut self, hostname: &Hostname, rollout_id: &RolloutId, seq: u64) {
        let acknowledged = self.acknowledged.check(hostname, rollout_id, seq);
        self.record("acknowledged", acknowledged);
    }

    /// A dispatch reached its host.
    pub fn delivered(&mut self, dispatch: &Dispatch) {
        let key = (dispatch.rollout_id.clone(), dispatch.hostname.clone());
        let result = if self.dispatched.get(&key) == Some(&dispatch.target_closure) {
            Ok(())
        } else {
            Err(format!(
                "{} was offered {}, which was never dispatched",
                key.1, key.0
            ))
        };
        self.record("dispatches", result);
    }

    /// An owner has this state, which ends before `next`.
    pub fn owned(&mut self, partition: Partition, state: &PartitionState, next: Position) {
        let expected = self.reference.state_before(partition, next);
        let result = if *state == expected {
            Ok(())
        } else {
            Err(format!(
                "an owner of {partition} at {next:?} differs from a replay: {}",
                difference(state, &expected)
            ))
        };
        self.record("owners", result);
    }

    /// An owner is about to append recovered entries, having read the input log up to a sequence.
    pub fn recovers(
        &mut self,
        process: &str,
        (partition, looked): (Partition, u64),
        entries: &[Entry],
    ) {
        let result = self.recoveries.begins(process, looked, entries);
        self.record(
            "recoveries",
            result.map_err(|text| format!("{partition}: {text}")),
        );
    }

    /// The lease bucket lost its data.
    pub fn bucket_lost(&mut self, now: Time) {
        self.one_holder.bucket_lost(now);
    }

    /// Processes that hold a lease of a service.
    pub fn holders(&mut self, now: Time, service: Service, holders: (&str, &[String])) {
        let result = self.one_holder.check(now, service, holders);
        self.record("leases", result);
    }

    /// A service stopped a partition with an error.
    pub fn stopped_with_error(&mut self, partition: Partition) {
        self.stopped.insert(partition);
    }

    /// True when a service stopped a partition since the end of one of its logs was lost.
    pub fn is_stopped(&self, partition: Partition) -> bool {
        self.stopped.contains(&partition)
    }

    /// The logs of a partition lost their ends; of the input log these messages.
    pub fn tail_lost(
        &mut self,
        partition: Partition,
        lost: Vec<Rc<StoredMessage>>,
        (broker, database): (&Broker, &Database),
    ) {
        self.stopped.remove(&partition);
        let last = broker
            .stream(LogId::Output(partition))
            .and_then(Stream::last);
        let frame = last.and_then(|message| message.output());
        self.epochs.rewind(partition, frame.map(Rc::as_ref));
        let output = broker.stream(LogId::Output(partition));
        let output = output.map_or(0, Stream::last_seq);
        self.retention.tail_lost(partition, output);
        self.rows.tail_lost(partition, output);
        let covered = lost_tails::covered(partition, broker, database);
        let first = lost.first().map(|message| message.seq);
        let is_rewound = self
            .lost_tails
            .lose(partition, lost, covered, &mut self.reference);
        if let (true, Some(first)) = (is_rewound, first) {
            self.rewind(partition, first - 1);
        }
    }

    /// Logs and rows are lost, and their checks start anew. Acknowledged events and dispatches are kept.
    pub fn everything_lost(&mut self, now: Time) {
        self.bucket_lost(now);
        self.lost_at = Some(now);
        self.reference.forget();
        self.budgets = Budgets::default();
        self.halts = Halts::default();
        self.waves = Waves::default();
        self.edges = Edges::new(self.edges.partitions());
        self.accepted_events = AcceptedEvents::default();
        self.epochs = Epochs::default();
        self.rows = Rows::default();
        self.retention = Retention::default();
        self.recoveries = Recoveries::default();
        self.leaders = Leaders::default();
    }

    /// The log goes on after a sequence without the entries that were there.
    fn rewind(&mut self, partition: Partition, last: u64) {
        self.accepted_events.forget(partition, last);
        self.is_rewound = true;
    }

    /// True when the end of any log was lost.
    pub fn is_tail_lost(&self) -> bool {
        self.lost_tails.is_any()
    }

    /// Records the result of an invariant; the first violation is kept.
    pub fn record(&mut self, invariant: &'static str, result: CheckResult) {
        if let (Err(message), None) = (result, &self.violation) {
            self.violation = Some(Violation { invariant, message });
        }
    }

    /// Events acknowledged so far.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.count()
    }

    /// Compares the rows of a partition.
    pub fn compare_rows(&mut self, partition: Partition, snapshot: PartitionSnapshot) {
        if self.lost_tails.touches(partition) {
            let rows = compare_with(&self.reference, partition, snapshot);
            return self.record("rows", rows);
        }
        let rows = self
            .rows
            .compare(partition, snapshot, &self.reference.pinned);
        self.record("rows", rows);
    }
}

/// Records a dispatch: only recorded ones may be offered.
fn record_dispatch(
    dispatched: &mut BTreeMap<(RolloutId, Hostname), ClosureHash>,
    folded: FoldedEntry<'_>,
) {
    if let Some(PlanAction::QueueDispatch {
        rollout_id,
        hostname,
        target_closure,
        ..
    }) = folded.action()
    {
        let key = (rollout_id.clone(), hostname.clone());
        dispatched.insert(key, target_closure.clone());
    }
}
