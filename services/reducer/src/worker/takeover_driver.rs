//! Drives a [`Takeover`]: performs its requests against bus, database and object store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{
    Bus, LastFrame, LastFrameError, Message, OutputLog, ReadError, Reader, StreamIdentity,
};
use nixfleet_checkpoint::{Checkpoint, CheckpointError};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, OutputFrame};
use nixfleet_reducer::{
    HydratedPartition, OwnershipEnd, PartitionLogs, Takeover, TakeoverRequest, TakeoverResponse,
};
use nixfleet_store::{ReadError as RowError, Store};
use tokio::task::spawn_blocking;

use crate::manifests::ManifestReader;

/// Maximum of output frames in one batch.
const FRAMES_AT_ONCE: usize = 64;
/// Timeout for frames that are stored.
const FRAMES_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct TakeoverDriver {
    pub bus: Bus,
    /// Handle of the output log, opened before anything is read.
    pub log: OutputLog,
    pub store: Arc<Store>,
    pub manifests: ManifestReader,
    pub partition: Partition,
}

impl TakeoverDriver {
    pub async fn run(&self) -> Result<HydratedPartition, OwnershipEnd> {
        let log = &self.log;
        let mut takeover = Takeover::new();
        let mut reader = None;
        loop {
            let answer = match takeover.next_request() {
                TakeoverRequest::Cursor => TakeoverResponse::Cursor(self.cursor().await?),
                TakeoverRequest::LastFrame => TakeoverResponse::LastFrame(last_frame(log).await?),
                TakeoverRequest::Announcement(seq) => {
                    TakeoverResponse::Announcement(self.announcement(seq).await?)
                }
                TakeoverRequest::Checkpoint(named) => {
                    TakeoverResponse::Checkpoint(self.checkpoint(&named).await?)
                }
                TakeoverRequest::Logs(at) => TakeoverResponse::Logs(self.logs(&at).await?),
                TakeoverRequest::Barrier { frame, expected } => {
                    TakeoverResponse::Barrier(log.publish(&frame, expected).await)
                }
                TakeoverRequest::Snapshot => TakeoverResponse::Snapshot(
                    self.store
                        .load_partition(self.partition)
                        .await
                        .map_err(|error| row_fault(error, "loading the rows"))?,
                ),
                TakeoverRequest::Manifest(hash) => {
                    TakeoverResponse::Manifest(self.manifests.fetch(&hash).await?)
                }
                TakeoverRequest::Frames { from, .. } => {
                    let reader = reader.get_or_insert_with(|| self.bus.reader(log.stream(), from));
                    TakeoverResponse::Frames(frames(reader).await?)
                }
                TakeoverRequest::Done => break,
            };
            takeover.give(answer)?;
        }
        let taken = takeover.finish();
        let taken = taken.context("the takeover requested nothing and was not finished");
        let taken = taken.map_err(OwnershipEnd::Failed)?;
        self.log(&taken);
        Ok(taken)
    }

    fn log(&self, taken: &HydratedPartition) {
        let partition = self.partition;
        if taken.origin.own > 1 {
            tracing::warn!(%partition, from = taken.origin.own,
                "rebuilt the state from an incomplete log: there were no rows");
        }
        for refused in &taken.refused {
            metrics::counter!("nixfleet_checkpoints_refused_total").increment(1);
            tracing::error!(%partition, refused, "a checkpoint cannot be used; used an older one");
        }
        let rollouts = taken.state.rollouts().len();
        let (epoch, seq, next) = (taken.epoch, taken.out_seq, taken.start.next.seq);
        tracing::info!(%partition, epoch, seq, rollouts, next, "took over the partition");
    }

    async fn cursor(&self) -> Result<Option<nixfleet_proto::snapshot::Cursor>, OwnershipEnd> {
        self.store
            .schema_ready()
            .await
            .map_err(|error| row_fault(error, "checking the schema"))?;
        self.store
            .cursor(self.partition)
            .await
            .map_err(|error| row_fault(error, "reading the cursor"))
    }

    async fn announcement(&self, seq: u64) -> Result<Option<OutputFrame>, OwnershipEnd> {
        let frame = self.bus.checkpoints().frame_at(self.partition, seq).await;
        frame.map_err(OwnershipEnd::failed)
    }

    /// Reads a checkpoint. A missing or different object is not an error of the takeover: the
    /// checkpoint before may be usable.
    async fn checkpoint(
        &self,
        named: &CheckpointRef,
    ) -> Result<Result<Box<Checkpoint>, String>, OwnershipEnd> {
        let (partition, store) = (self.partition, self.bus.checkpoints());
        let found = store
            .get(partition, named)
            .await
            .map_err(OwnershipEnd::failed)?;
        let Some(bytes) = found else {
            return Ok(Err(CheckpointError::Missing.to_string()));
        };
        let (named, number) = (named.clone(), partition.number());
        let read = spawn_blocking(move || Checkpoint::decode(&bytes, number, &named));
        let read = read.await.context("reading a checkpoint");
        let read = read.map_err(OwnershipEnd::Failed)?;
        Ok(read
            .map(Box::new)
            .map_err(|error| format!("{:#}", anyhow::Error::new(error))))
    }

    async fn logs(&self, at: &BTreeSet<u64>) -> Result<PartitionLogs, OwnershipEnd> {
        let input = self.bus.names().input_stream(self.partition);
        let output = self.bus.names().output_stream(self.partition);
        let mut ids = BTreeMap::new();
        for seq in at {
            let id = self
                .bus
                .message_id_at(&input, *seq)
                .await
                .with_context(|| format!("reading the input message at {seq}"))
                .map_err(OwnershipEnd::Failed)?;
            ids.extend(id.map(|id| (*seq, id)));
        }
        Ok(PartitionLogs {
            input: self.identity(&input).await?,
            output: self.identity(&output).await?,
            ids,
        })
    }

    async fn identity(&self, stream: &str) -> Result<StreamIdentity, OwnershipEnd> {
        self.bus
            .stream_identity(stream)
            .await
            .with_context(|| format!("reading the state of {stream}"))
            .map_err(OwnershipEnd::Failed)
    }
}

async fn last_frame(log: &OutputLog) -> Result<Option<LastFrame>, OwnershipEnd> {
    log.last().await.map_err(|error| match error {
        LastFrameError::Leader(_) => OwnershipEnd::failed(error),
        LastFrameError::Undecodable { .. } => OwnershipEnd::halted(error),
    })
}

/// Reads frames before the barrier. They are stored, so they arrive unless the log lost its end.
async fn frames(reader: &mut Reader) -> Result<Vec<Message>, OwnershipEnd> {
    let batch = tokio::time::timeout(FRAMES_TIMEOUT, reader.next_batch(FRAMES_AT_ONCE)).await;
    let batch = batch.context("no frames before the barrier within the timeout");
    batch.map_err(OwnershipEnd::Failed)?.map_err(read_fault)
}

/// Classifies a database error: the applier creates a missing schema.
fn row_fault(error: RowError, doing: &'static str) -> OwnershipEnd {
    if error.retryable() {
        OwnershipEnd::Failed(anyhow::Error::new(error).context(doing))
    } else {
        OwnershipEnd::Halted(anyhow::Error::new(error).context(doing))
    }
}

/// Classifies a reader error: missing streams and moving leaders are retried.
pub fn read_fault(error: ReadError) -> OwnershipEnd {
    match error {
        ReadError::Missing { .. } | ReadError::Replaced { .. } => OwnershipEnd::failed(error),
        ReadError::Trimmed { .. } => OwnershipEnd::Halted(anyhow::Error::new(error).context(
            "entries were trimmed before they were folded; delete the streams, so that they are \
             created above the cursors, and let agents send again",
        )),
        ReadError::Gap { .. } | ReadError::Regressed { .. } | ReadError::Rewritten { .. } => {
            OwnershipEnd::halted(error)
        }
    }
}
