//! The model of the broker: streams, and readers that wait for the next message.

use std::collections::BTreeMap;
use std::rc::Rc;

use nixfleet_bus::{Floors, StreamIdentity};
use nixfleet_proto::Timestamp;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{Names, Partition};

use super::kv::Bucket;
use super::log::{Ack, Publish, Retried, Stored, Stream, WrongLast};
use super::op::Log;
use crate::world::event::Caller;

/// A fetch that waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Who waits.
    pub caller: Caller,
    /// From where.
    pub from: u64,
    /// For how many at most.
    pub max: usize,
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    names: Names,
    streams: BTreeMap<Log, Stream>,
    waiting: BTreeMap<Log, Vec<Waiting>>,
    retried: Retried,
    partitions: u16,
    /// The lease bucket.
    pub leases: Bucket,
}

impl Broker {
    /// A broker without streams.
    pub fn new(partitions: u16, retried: Retried) -> Self {
        Self {
            names: Names::new("fleet"),
            streams: BTreeMap::new(),
            waiting: BTreeMap::new(),
            retried,
            partitions,
            leases: Bucket::default(),
        }
    }

    /// Names of streams and subjects.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Creates what is missing, above what the cursors remember.
    pub fn ensure_layout(&mut self, cursors: &[(Partition, Cursor)], now: Timestamp) {
        let floors = Floors::of_cursors(&self.names, cursors);
        for partition in Partition::all(self.partitions) {
            for log in [Log::Input(partition), Log::Output(partition)] {
                let name = match log {
                    Log::Input(_) => self.names.input_stream(partition),
                    Log::Output(_) => self.names.output_stream(partition),
                };
                let first = floors.first_sequence(&name).unwrap_or(1);
                self.streams
                    .entry(log)
                    .or_insert_with(|| Stream::new(now, first));
            }
        }
    }

    /// A stream, when it is there.
    pub fn stream(&self, log: Log) -> Option<&Stream> {
        self.streams.get(&log)
    }

    /// Stores a message; `None` when the stream is not there.
    pub fn publish(
        &mut self,
        log: Log,
        message: Publish,
        now: Timestamp,
    ) -> Option<Result<Ack, WrongLast>> {
        let stream = self.streams.get_mut(&log)?;
        Some(stream.publish(message, self.retried, now))
    }

    /// What the stream is and holds.
    pub fn identity(&self, log: Log) -> Option<StreamIdentity> {
        let stream = self.streams.get(&log)?;
        Some(StreamIdentity {
            created: stream.created(),
            first_seq: stream.first_seq(),
            last_seq: stream.last_seq(),
        })
    }

    /// Messages from a sequence on.
    pub fn read(&self, log: Log, from: u64, max: usize) -> Vec<Rc<Stored>> {
        let stream = self.streams.get(&log);
        stream.map_or_else(Vec::new, |stream| stream.from(from, max).cloned().collect())
    }

    /// Lets a fetch wait.
    pub fn wait(&mut self, log: Log, waiting: Waiting) {
        self.waiting.entry(log).or_default().push(waiting);
    }

    /// Who waited, and does not any more.
    pub fn wake(&mut self, log: Log) -> Vec<Waiting> {
        self.waiting.remove(&log).unwrap_or_default()
    }

    /// A stream loses its last messages, at most so many.
    pub fn lose_tail(&mut self, log: Log, count: usize) -> Vec<Rc<Stored>> {
        let stream = self.streams.get_mut(&log);
        stream.map_or_else(Vec::new, |stream| stream.lose_tail(count))
    }

    /// The server loses its data.
    pub fn lose_everything(&mut self) {
        self.streams.clear();
        self.leases.lose_everything();
        self.disconnect();
    }

    /// The deduplication window of every stream ends.
    pub fn forget_ids(&mut self) {
        self.streams.values_mut().for_each(Stream::forget_ids);
    }

    /// Connections break: nobody waits or watches any more.
    pub fn disconnect(&mut self) {
        self.waiting.clear();
        self.leases.disconnect();
    }
}
