//! What a process reaches over its connections: logs, stores and leases.

use std::sync::Arc;

use nixfleet_proto::subject::Partition;
use tokio_util::sync::CancellationToken;

use super::Bus;
use crate::lease::{self, Leases, Membership};
use crate::objects::checkpoints::CheckpointStore;
use crate::objects::manifests::ManifestStore;
use crate::publish::input_log::{self, InputPublisher};
use crate::publish::output_log::OutputLog;
use crate::reader::position::SequenceGaps;
use crate::reader::stream_reader::Reader;

impl Bus {
    /// A reader whose first message is the one with `from_seq`; 0 and 1 both mean the first message
    /// ever. Nothing is sent before the first batch is asked for.
    pub fn reader(&self, stream: &str, from_seq: u64) -> Reader {
        let gaps = if stream == self.names().manifest_stream() {
            SequenceGaps::Allowed
        } else {
            SequenceGaps::Forbidden
        };
        Reader::new(self.clone(), stream.to_owned(), from_seq, gaps)
    }

    /// The input publishers of this process; they run while a clone of them is held.
    pub fn input(&self) -> InputPublisher {
        let mut running = self.input_queues();
        let queues = running.upgrade().unwrap_or_else(|| {
            let queues = Arc::new(input_log::start(self));
            *running = Arc::downgrade(&queues);
            queues
        });
        InputPublisher::new(self.clone(), queues)
    }

    /// The output log of a partition.
    pub fn output(&self, partition: Partition) -> OutputLog {
        OutputLog::new(self.clone(), partition)
    }

    /// Artifacts and their announcements.
    pub fn manifests(&self) -> ManifestStore {
        ManifestStore::new(self.clone())
    }

    /// Checkpoints of partitions.
    pub fn checkpoints(&self) -> CheckpointStore {
        CheckpointStore::new(self.clone())
    }

    /// Makes this instance a member of a service that shares out keys. When `stop` is cancelled it
    /// leaves at once, and every lease is asked back.
    ///
    /// # Panics
    /// Outside a runtime: a task keeps the membership alive.
    pub fn leases(&self, member: Membership<'_>, stop: &CancellationToken) -> Leases {
        lease::join(self.clone(), member, stop.clone())
    }
}
