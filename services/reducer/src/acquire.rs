//! Driving a takeover: fetches what it asks for, as often as it asks.

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
use nixfleet_reducer::{Answer, Ended, Logs, Need, Taken, Takeover};
use nixfleet_store::{ReadError as RowError, Store};
use tokio::task::spawn_blocking;

use crate::artifacts::Artifacts;

/// Most output frames taken from the reader at once.
const FRAMES_AT_ONCE: usize = 64;
/// Longest wait for frames that were stored.
const FRAMES_PATIENCE: Duration = Duration::from_secs(30);

/// What a takeover is driven with.
#[derive(Clone)]
pub struct Acquire {
    /// The bus.
    pub bus: Bus,
    /// The output log, of the streams as they are before anything is read.
    pub log: OutputLog,
    /// The rows.
    pub store: Arc<Store>,
    /// What manifests pin.
    pub artifacts: Artifacts,
    /// The partition.
    pub partition: Partition,
}

impl Acquire {
    /// Takes the partition over.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn run(&self) -> Result<Taken, Ended> {
        let log = &self.log;
        let mut takeover = Takeover::new();
        let mut reader = None;
        loop {
            let answer = match takeover.need() {
                Need::Cursor => Answer::Cursor(self.cursor().await?),
                Need::LastFrame => Answer::LastFrame(last_frame(log).await?),
                Need::Announcement(seq) => Answer::Announcement(self.announcement(seq).await?),
                Need::Checkpoint(named) => Answer::Checkpoint(self.checkpoint(&named).await?),
                Need::Logs(at) => Answer::Logs(self.logs(&at).await?),
                Need::Barrier { frame, expected } => {
                    Answer::Barrier(log.publish(&frame, expected).await)
                }
                Need::Snapshot => Answer::Snapshot(
                    self.store
                        .load_partition(self.partition)
                        .await
                        .map_err(|error| row_fault(error, "loading the rows"))?,
                ),
                Need::Manifest(hash) => Answer::Manifest(self.artifacts.fetch(&hash).await?),
                Need::Frames { from, .. } => {
                    let reader = reader.get_or_insert_with(|| self.bus.reader(log.stream(), from));
                    Answer::Frames(frames(reader).await?)
                }
                Need::Nothing => break,
            };
            takeover.give(answer)?;
        }
        let taken = takeover.finish();
        let taken = taken.context("the takeover needed nothing and was not done");
        let taken = taken.map_err(Ended::Failed)?;
        self.say(&taken);
        Ok(taken)
    }

    fn say(&self, taken: &Taken) {
        let partition = self.partition;
        if taken.origin.own > 1 {
            tracing::warn!(%partition, from = taken.origin.own,
                "rebuilt: the rows were gone and the log did not reach back to its beginning");
        }
        for refused in &taken.refused {
            metrics::counter!("nixfleet_checkpoints_refused_total").increment(1);
            tracing::error!(%partition, refused, "an older checkpoint was used");
        }
        let rollouts = taken.state.rollouts().len();
        let (epoch, seq, next) = (taken.epoch, taken.out_seq, taken.start.next.seq);
        tracing::info!(%partition, epoch, seq, rollouts, next, "took over");
    }

    async fn cursor(&self) -> Result<Option<nixfleet_proto::snapshot::Cursor>, Ended> {
        self.store
            .schema_ready()
            .await
            .map_err(|error| row_fault(error, "checking the schema"))?;
        self.store
            .cursor(self.partition)
            .await
            .map_err(|error| row_fault(error, "reading the cursor"))
    }

    async fn announcement(&self, seq: u64) -> Result<Option<OutputFrame>, Ended> {
        let frame = self.bus.checkpoints().frame_at(self.partition, seq).await;
        frame.map_err(Ended::failed)
    }

    /// A checkpoint that is not there, or not what was named, is no failure: the one before it may be.
    async fn checkpoint(
        &self,
        named: &CheckpointRef,
    ) -> Result<Result<Box<Checkpoint>, String>, Ended> {
        let (partition, store) = (self.partition, self.bus.checkpoints());
        let found = store.get(partition, named).await.map_err(Ended::failed)?;
        let Some(bytes) = found else {
            return Ok(Err(CheckpointError::Missing.to_string()));
        };
        let (named, number) = (named.clone(), partition.number());
        let read = spawn_blocking(move || Checkpoint::read(&bytes, number, &named));
        let read = read.await.context("reading a checkpoint");
        let read = read.map_err(Ended::Failed)?;
        Ok(read
            .map(Box::new)
            .map_err(|error| format!("{:#}", anyhow::Error::new(error))))
    }

    async fn logs(&self, at: &BTreeSet<u64>) -> Result<Logs, Ended> {
        let input = self.bus.names().input_stream(self.partition);
        let output = self.bus.names().output_stream(self.partition);
        let mut ids = BTreeMap::new();
        for seq in at {
            let id = self
                .bus
                .message_id_at(&input, *seq)
                .await
                .with_context(|| format!("reading the input message at {seq}"))
                .map_err(Ended::Failed)?;
            ids.extend(id.map(|id| (*seq, id)));
        }
        Ok(Logs {
            input: self.identity(&input).await?,
            output: self.identity(&output).await?,
            ids,
        })
    }

    async fn identity(&self, stream: &str) -> Result<StreamIdentity, Ended> {
        self.bus
            .stream_identity(stream)
            .await
            .with_context(|| format!("looking at {stream}"))
            .map_err(Ended::Failed)
    }
}

async fn last_frame(log: &OutputLog) -> Result<Option<LastFrame>, Ended> {
    log.last().await.map_err(|error| match error {
        LastFrameError::Leader(_) => Ended::failed(error),
        LastFrameError::Undecodable { .. } => Ended::halted(error),
    })
}

/// All of them are behind a barrier that is stored, so that they come, unless the log lost its end.
async fn frames(reader: &mut Reader) -> Result<Vec<Message>, Ended> {
    let batch = tokio::time::timeout(FRAMES_PATIENCE, reader.next_batch(FRAMES_AT_ONCE)).await;
    let batch = batch.context("the frames before the barrier do not come");
    batch.map_err(Ended::Failed)?.map_err(read_fault)
}

/// A schema that is not there yet comes with the applier; rows that cannot be read do not mend.
fn row_fault(error: RowError, doing: &'static str) -> Ended {
    if error.retryable() {
        Ended::Failed(anyhow::Error::new(error).context(doing))
    } else {
        Ended::Halted(anyhow::Error::new(error).context(doing))
    }
}

/// A reader that cannot go on: streams that appear or leaders that move are waited for elsewhere.
pub fn read_fault(error: ReadError) -> Ended {
    match error {
        ReadError::Missing { .. } | ReadError::Replaced { .. } => Ended::failed(error),
        ReadError::Trimmed { .. } => Ended::Halted(anyhow::Error::new(error).context(
            "entries were trimmed before they were folded; delete the streams, so that they are \
             created above the cursors, and let agents send again",
        )),
        ReadError::Gap { .. } | ReadError::Regressed { .. } | ReadError::Rewritten { .. } => {
            Ended::halted(error)
        }
    }
}
