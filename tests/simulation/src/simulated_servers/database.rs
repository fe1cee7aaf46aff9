//! The model of the database: one transaction writes the rows of a turn and moves the cursor, when the cursor
//! is where the writer expects it.
//!
//! Has the effect of the statements in `libs/store/sql` on the tables of one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use nixfleet_proto::host::FailedControl;
use nixfleet_proto::snapshot::{
    BlockRow, Cause, Cursor, HostRow, PartitionSnapshot, ProbeFailureRow, QuarantineRow, RolloutRow,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::turn_rows::{
    BlockKey, HostKey, ProbeKey, QuarantineKey, Stamp, TurnRows, turns_from_snapshot,
};
use nixfleet_proto::{ClosureHash, Hostname, Minutes, RolloutId, Timestamp, mutation_testing};

use super::log_id::LogId;

/// Rows that an applier writes in one transaction.
#[derive(Debug)]
pub struct Turn {
    /// The partition.
    pub partition: Partition,
    /// Output sequence that the cursor is expected at; 0 when there is none.
    pub previous: u64,
    /// The rows.
    pub rows: TurnRows,
    /// The new cursor.
    pub cursor: Cursor,
}

/// Rows of a checkpoint that replace those of a partition.
#[derive(Debug)]
pub struct Restore {
    /// The partition.
    pub partition: Partition,
    /// Output sequence that the cursor is expected at; 0 when there is none.
    pub previous: u64,
    /// The rows with their cursor.
    pub rows: PartitionSnapshot,
}

/// How far a log is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveMark {
    /// The last archived sequence.
    pub seq: u64,
    /// When the stream was created.
    pub created: Timestamp,
}

/// Positions in the logs that the database has.
#[derive(Debug, Clone, Default)]
pub struct RecordedPositions {
    /// Cursors of the rows.
    pub cursors: Vec<(Partition, Cursor)>,
    /// Last archived sequences.
    pub archived: Vec<(LogId, u64)>,
}

/// A queued dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchRow {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The host.
    pub hostname: Hostname,
    /// Its target closure.
    pub target_closure: ClosureHash,
    /// Soak of its wave.
    pub soak_minutes: Minutes,
    /// When it was queued.
    pub enqueued_at: Timestamp,
}

/// The tables of one partition.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    cursor: Option<Cursor>,
    rollouts: BTreeMap<RolloutId, RolloutRow>,
    hosts: BTreeMap<HostKey, HostRow>,
    quarantines: BTreeMap<QuarantineKey, Cause>,
    failures: BTreeMap<ProbeKey, (BTreeSet<FailedControl>, Cause)>,
    dispatches: BTreeMap<HostKey, (DispatchRow, Cause)>,
    blocks: BTreeMap<BlockKey, BlockRow>,
}

/// The database.
#[derive(Debug, Default)]
pub struct Database {
    partitions: BTreeMap<Partition, Rc<Tables>>,
    archive: BTreeMap<LogId, ArchiveMark>,
}

/// A copy of the database, as a backup is.
#[derive(Debug, Clone, Default)]
pub struct Backup {
    partitions: BTreeMap<Partition, Rc<Tables>>,
    archive: BTreeMap<LogId, ArchiveMark>,
}

impl Database {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a turn; false when the cursor is elsewhere, and then nothing was written.
    pub fn apply(&mut self, turn: &Turn) -> bool {
        let tables = self.partitions.entry(turn.partition).or_default();
        let current = tables.cursor.as_ref().map_or(0, |cursor| cursor.out_seq);
        if current != turn.previous && !mutation_testing::is_active("applier-no-compare") {
            return false;
        }
        let tables = Rc::make_mut(tables);
        tables.write(&turn.rows);
        tables.cursor = Some(turn.cursor.clone());
        true
    }

    /// Writes the rows of a checkpoint, as [`Self::apply`] writes a turn.
    pub fn restore_rows(&mut self, restore: &Restore) -> bool {
        let tables = self.partitions.entry(restore.partition).or_default();
        let current = tables.cursor.as_ref().map_or(0, |cursor| cursor.out_seq);
        if current != restore.previous {
            return false;
        }
        Rc::make_mut(tables).restore(&restore.rows);
        true
    }

    /// How far a log is archived.
    pub fn archive_mark(&self, log: LogId) -> Option<ArchiveMark> {
        self.archive.get(&log).copied()
    }

    /// Moves the mark of the archive; false when it is elsewhere.
    pub fn archive(&mut self, log: LogId, previous: u64, mark: ArchiveMark) -> bool {
        let current = self.archive.get(&log).map_or(0, |mark| mark.seq);
        if current == previous {
            self.archive.insert(log, mark);
        }
        current == previous
    }

    /// All positions in the logs.
    pub fn recorded(&self) -> RecordedPositions {
        let marks = self.archive.iter();
        RecordedPositions {
            cursors: self.cursors(),
            archived: marks.map(|(log, mark)| (*log, mark.seq)).collect(),
        }
    }

    /// The cursor of a partition.
    pub fn cursor(&self, partition: Partition) -> Option<&Cursor> {
        self.partitions.get(&partition)?.cursor.as_ref()
    }

    /// All cursors.
    pub fn cursors(&self) -> Vec<(Partition, Cursor)> {
        let with = self.partitions.iter();
        with.filter_map(|(partition, tables)| Some((*partition, tables.cursor.clone()?)))
            .collect()
    }

    /// All rows of a partition.
    pub fn load(&self, partition: Partition) -> PartitionSnapshot {
        let tables = self.partitions.get(&partition);
        tables.map_or_else(PartitionSnapshot::default, |tables| tables.snapshot())
    }

    /// All queued dispatches.
    pub fn dispatches(&self) -> Vec<DispatchRow> {
        let tables = self.partitions.values();
        tables
            .flat_map(|tables| tables.dispatches.values().map(|(row, _)| row.clone()))
            .collect()
    }

    /// Makes a backup.
    pub fn back_up(&self) -> Backup {
        Backup {
            partitions: self.partitions.clone(),
            archive: self.archive.clone(),
        }
    }

    /// Replaces all data by a backup; the default backup is empty.
    pub fn restore(&mut self, backup: &Backup) {
        self.partitions.clone_from(&backup.partitions);
        self.archive.clone_from(&backup.archive);
    }
}

impl Tables {
    /// Records are never deleted: a checkpoint of the same log has every rollout of the rows.
    fn restore(&mut self, rows: &PartitionSnapshot) {
        self.quarantines.clear();
        self.failures.clear();
        self.dispatches.clear();
        self.blocks.clear();
        for row in self.hosts.values_mut() {
            row.recovery_candidate = None;
        }
        let known: BTreeSet<_> = self.rollouts.keys().cloned().collect();
        for mut turn in turns_from_snapshot(rows) {
            let opened = &mut turn.opened;
            opened.retain(|opened| !known.contains(&opened.record.rollout_id));
            self.write(&turn);
        }
        self.cursor.clone_from(&rows.cursor);
    }

    fn write(&mut self, rows: &TurnRows) {
        self.open(rows);
        for (rollout_id, change) in &rows.rollouts {
            if let Some(row) = self.rollouts.get_mut(rollout_id) {
                row.record = change.record.clone();
                row.position = change.stamp.position;
            }
        }
        for (key, change) in &rows.hosts {
            if let Some(row) = self.hosts.get_mut(key) {
                row.record = Arc::clone(&change.record);
                row.position = change.stamp.position;
            }
        }
        for (key, candidate) in &rows.recovery_candidates {
            if let Some(row) = self.hosts.get_mut(key) {
                row.recovery_candidate.clone_from(candidate);
            }
        }
        for key in &rows.quarantines_removed {
            self.quarantines.remove(key);
        }
        for (key, stamp) in &rows.quarantines_inserted {
            self.quarantines.entry(key.clone()).or_insert(cause(stamp));
        }
        self.write_related_rows(rows);
    }

    fn open(&mut self, rows: &TurnRows) {
        for opened in &rows.opened {
            let rollout_id = &opened.record.rollout_id;
            let row = RolloutRow {
                record: opened.record.clone(),
                manifest_hash: opened.manifest_hash.clone(),
                pinned: Some(Arc::clone(&opened.pinned)),
                position: opened.stamp.position,
            };
            self.rollouts.insert(rollout_id.clone(), row);
            for record in opened.pinned.pending_hosts(rollout_id, opened.stamp.at) {
                let key = (rollout_id.clone(), record.hostname.clone());
                let row = HostRow {
                    record: Arc::new(record),
                    queued: None,
                    recovery_candidate: None,
                    position: opened.stamp.position,
                };
                self.hosts.insert(key, row);
            }
        }
    }

    fn write_related_rows(&mut self, rows: &TurnRows) {
        for (key, set) in &rows.probe_failures {
            self.failures.remove(key);
            let host = (key.0.clone(), key.1.clone());
            if !set.failures.is_empty() && self.hosts.contains_key(&host) {
                let controls = set.failures.iter().cloned().collect();
                let observed = Cause {
                    at: set.observed_at,
                    ..cause(&set.stamp)
                };
                self.failures.insert(key.clone(), (controls, observed));
            }
        }
        self.dispatches
            .retain(|(rollout_id, _), _| !rows.dispatches_cancelled.contains(rollout_id));
        for (key, change) in &rows.dispatches {
            match change {
                Some(change) if self.hosts.contains_key(key) => {
                    let row = DispatchRow {
                        rollout_id: key.0.clone(),
                        hostname: key.1.clone(),
                        target_closure: change.target_closure.clone(),
                        soak_minutes: change.soak_minutes,
                        enqueued_at: change.stamp.at,
                    };
                    self.dispatches
                        .insert(key.clone(), (row, cause(&change.stamp)));
                }
                Some(_) => {}
                None => {
                    self.dispatches.remove(key);
                }
            }
        }
        for (key, change) in &rows.blocks {
            if change.holds.is_empty() {
                self.blocks.remove(key);
            } else if self.rollouts.contains_key(&key.0) {
                let row = BlockRow {
                    rollout_id: key.0.clone(),
                    wave: key.1,
                    gate: key.2,
                    holds: change.holds.clone(),
                    cause: cause(&change.stamp),
                };
                self.blocks.insert(key.clone(), row);
            }
        }
    }

    fn snapshot(&self) -> PartitionSnapshot {
        let hosts = self.hosts.iter().map(|(key, row)| HostRow {
            queued: self.dispatches.get(key).map(|(_, queued)| *queued),
            ..row.clone()
        });
        let quarantines = self.quarantines.iter();
        let quarantines = quarantines.map(|((channel, closure_hash), cause)| QuarantineRow {
            channel: channel.clone(),
            closure_hash: closure_hash.clone(),
            cause: *cause,
        });
        let failures = self.failures.iter().flat_map(|(key, (controls, cause))| {
            controls.iter().map(|control| ProbeFailureRow {
                rollout_id: key.0.clone(),
                hostname: key.1.clone(),
                probe_name: key.2.clone(),
                control: control.clone(),
                cause: *cause,
            })
        });
        PartitionSnapshot {
            cursor: self.cursor.clone(),
            rollouts: self.rollouts.values().cloned().collect(),
            hosts: hosts.collect(),
            quarantines: quarantines.collect(),
            probe_failures: failures.collect(),
            blocks: self.blocks.values().cloned().collect(),
        }
    }
}

fn cause(stamp: &Stamp) -> Cause {
    Cause {
        position: stamp.position,
        at: stamp.at,
    }
}
