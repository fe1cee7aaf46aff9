//! The model of the broker: streams, pending fetches, leases and stored objects.

use std::collections::BTreeMap;
use std::rc::Rc;

use nixfleet_bus::{LogUsage, SequenceFloors, StreamIdentity};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_proto::{Checkpoints, Timestamp};

use super::database::RecordedPositions;
use super::lease_bucket::LeaseBucket;
use super::log_id::LogId;
use super::object_store::ObjectStore;
use super::stream::{Ack, AppendRefusal, NewMessage, RetryCheckOrder, StoredMessage, Stream};
use crate::addressing::Caller;
use crate::scenario::LogLimits;

/// A fetch that waits for the next message.
#[derive(Debug, Clone, Copy)]
pub struct PendingFetch {
    /// The caller.
    pub caller: Caller,
    /// The first sequence.
    pub from: u64,
    /// Most messages of the reply.
    pub max: usize,
}

impl PendingFetch {
    /// A fetch of at most `max` messages from this sequence on.
    pub fn new(caller: Caller, from: u64, max: usize) -> Self {
        Self { caller, from, max }
    }
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    names: Names,
    streams: BTreeMap<LogId, Stream>,
    pending: BTreeMap<LogId, Vec<PendingFetch>>,
    retry_order: RetryCheckOrder,
    partitions: u16,
    limits: LogLimits,
    /// The lease bucket.
    pub leases: LeaseBucket,
    /// The object store of checkpoints.
    pub checkpoints: ObjectStore,
}

impl Broker {
    /// A broker without streams.
    pub fn new(partitions: u16, retry_order: RetryCheckOrder, limits: LogLimits) -> Self {
        Self {
            names: Names::new("fleet"),
            streams: BTreeMap::new(),
            pending: BTreeMap::new(),
            retry_order,
            partitions,
            limits,
            leases: LeaseBucket::default(),
            checkpoints: ObjectStore::default(),
        }
    }

    /// Names of streams and subjects.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Creates missing streams above the recorded positions.
    pub fn ensure_layout(&mut self, recorded: &RecordedPositions, now: Timestamp) {
        let archived = recorded.archived.iter();
        let archived = archived.map(|(log, seq)| (self.name(*log), *seq));
        let applied = recorded.cursors.iter();
        let applied =
            applied.flat_map(|(partition, cursor)| cursor.covered(&self.names, *partition));
        let floors: SequenceFloors = applied.chain(archived).collect();
        for partition in Partition::all(self.partitions) {
            for log in [LogId::Input(partition), LogId::Output(partition)] {
                let first = floors.first_sequence(&self.name(log)).unwrap_or(1);
                let max_bytes = self.limits.of_log(log);
                self.streams
                    .entry(log)
                    .or_insert_with(|| Stream::new(now, first, max_bytes));
            }
        }
    }

    fn name(&self, log: LogId) -> String {
        match log {
            LogId::Input(partition) => self.names.input_stream(partition),
            LogId::Output(partition) => self.names.output_stream(partition),
        }
    }

    /// A stream, when it exists.
    pub fn stream(&self, log: LogId) -> Option<&Stream> {
        self.streams.get(&log)
    }

    /// Stores a message; absent when the stream does not exist.
    pub fn publish(
        &mut self,
        log: LogId,
        message: NewMessage,
        now: Timestamp,
    ) -> Option<Result<Ack, AppendRefusal>> {
        let stream = self.streams.get_mut(&log)?;
        Some(stream.publish(message, self.retry_order, now))
    }

    /// Creation time, first and last sequence of a stream.
    pub fn identity(&self, log: LogId) -> Option<StreamIdentity> {
        let stream = self.streams.get(&log)?;
        Some(StreamIdentity {
            created: stream.created(),
            first_seq: stream.first_seq(),
            last_seq: stream.last_seq(),
        })
    }

    /// Usage of a stream.
    pub fn usage(&self, log: LogId) -> Option<LogUsage> {
        self.streams.get(&log).map(Stream::usage)
    }

    /// Deletes the messages of a stream before a sequence; gives how many there were.
    pub fn trim(&mut self, log: LogId, first_kept: u64) -> Option<u64> {
        Some(self.streams.get_mut(&log)?.trim(first_kept))
    }

    /// First sequence of the output log of a partition, and the checkpoints that it announced last.
    pub fn announced(&self, partition: Partition) -> Option<(u64, Checkpoints)> {
        let stream = self.streams.get(&LogId::Output(partition))?;
        let last = stream.last().and_then(|message| message.output());
        let frame = match last {
            Some(frame) if frame.checkpoints.is_none() => {
                let at = frame.announced_at.and_then(|seq| stream.get(seq));
                at.and_then(|message| message.output())
            }
            last => last,
        };
        let announced = frame.and_then(|frame| frame.checkpoints.clone());
        Some((stream.first_seq(), announced.unwrap_or_default()))
    }

    /// Messages from a sequence on.
    pub fn read(&self, log: LogId, from: u64, max: usize) -> Vec<Rc<StoredMessage>> {
        let stream = self.streams.get(&log);
        stream.map_or_else(Vec::new, |stream| stream.from(from, max).cloned().collect())
    }

    /// Adds a pending fetch.
    pub fn wait(&mut self, log: LogId, pending: PendingFetch) {
        self.pending.entry(log).or_default().push(pending);
    }

    /// Takes the pending fetches of a log.
    pub fn wake(&mut self, log: LogId) -> Vec<PendingFetch> {
        self.pending.remove(&log).unwrap_or_default()
    }

    /// A stream loses its last messages, at most so many.
    pub fn lose_tail(&mut self, log: LogId, count: usize) -> Vec<Rc<StoredMessage>> {
        let stream = self.streams.get_mut(&log);
        stream.map_or_else(Vec::new, |stream| stream.lose_tail(count))
    }

    /// The server loses its data.
    pub fn lose_everything(&mut self) {
        self.streams.clear();
        self.checkpoints = ObjectStore::default();
        self.leases.lose_everything();
        self.disconnect();
    }

    /// The deduplication window of every stream ends.
    pub fn forget_ids(&mut self) {
        self.streams.values_mut().for_each(Stream::forget_ids);
    }

    /// Ends all pending fetches and watches.
    pub fn disconnect(&mut self) {
        self.pending.clear();
        self.leases.disconnect();
    }
}
