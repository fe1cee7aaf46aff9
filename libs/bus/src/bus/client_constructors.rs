//! Logs, object stores and leases that a process opens over its connections.

use std::sync::Arc;

use nixfleet_proto::subject::Partition;
use tokio_util::sync::CancellationToken;

use super::Bus;
use crate::lease::{self, Leases, Membership};
use crate::object_store::checkpoints::CheckpointStore;
use crate::object_store::manifests::ManifestStore;
use crate::publish::input_log::{self, InputPublisher};
use crate::publish::output_log::OutputLog;
use crate::reader::read_position::SequenceGaps;
use crate::reader::stream_reader::Reader;

impl Bus {
    /// A reader whose first message has the sequence `from_seq`; 0 and 1 both mean the first message of the
    /// stream. Nothing is sent before the first batch is requested.
    pub fn reader(&self, stream: &str, from_seq: u64) -> Reader {
        let gaps = if stream == self.names().manifest_stream() {
            SequenceGaps::Allowed
        } else {
            SequenceGaps::Forbidden
        };
        Reader::new(self.clone(), stream.to_owned(), from_seq, gaps)
    }

    /// The input publishers of this process. They run while a clone of them exists.
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

    /// Makes this instance a member of a service that distributes keys. Cancelling `stop` ends the
    /// membership at once and recalls every lease.
    ///
    /// # Panics
    /// Outside a runtime, because a task keeps the membership alive.
    pub fn leases(&self, member: Membership<'_>, stop: &CancellationToken) -> Leases {
        lease::join(self.clone(), member, stop.clone())
    }
}
