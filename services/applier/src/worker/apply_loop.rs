//! Applies the output log of an owned partition, and classifies the errors that end this.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use futures::future::{OptionFuture, join};
use nixfleet_applier::{
    FrameBatch, PartitionLogs, SequencedFrame, StartPosition, TurnBuilder, needs_checkpoint,
};
use nixfleet_bus::{CheckpointStoreError, LeaderReadError, ManifestError, ReadError};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_store::{ApplyError, ReadError as StoreReadError};
use tokio::task::spawn_blocking;

use crate::schema::migrate;
use crate::turn_writer::{PreparedTurn, TurnWriter, decode};
use crate::worker::backoff::Backoff;
use crate::worker::checkpoint_restore::restore_checkpoint;

/// Pause after a turn that was not full with nothing left to read. The next turn has more to write
/// at once, and a row that changes several times is written once. Nobody waits for rows, while
/// hosts wait for their dispatches.
const TURN_PAUSE: Duration = Duration::from_millis(200);
/// Frames are decoded in pieces of this size, more than a full turn, while others are written.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// Why the loop ended.
pub enum LoopEnd {
    /// A stop was requested, and the current turn is finished.
    Stopped,
    /// The stored cursor is not the expected one: read it again at once.
    CursorChanged,
    /// A server is unavailable; retry later.
    Retry(anyhow::Error),
    /// An operator has to act; the error names the remedy.
    Halted(anyhow::Error),
}

/// Readiness and backoff of the worker.
pub struct Progress<'a> {
    pub readiness: &'a Readiness,
    pub component: &'a str,
    pub backoff: &'a mut Backoff,
}

impl Progress<'_> {
    fn record_success(&mut self) {
        self.readiness.set_ready(self.component, Ok(()));
        self.backoff.reset();
    }
}

/// Applies frames from the cursor on, until that fails or a stop is requested.
pub async fn apply_frames(
    writer: &TurnWriter,
    progress: &mut Progress<'_>,
    stop: &CancellationToken,
) -> LoopEnd {
    match try_apply_frames(writer, progress, stop).await {
        Ok(never) => match never {},
        Err(again) => again,
    }
}

async fn try_apply_frames(
    writer: &TurnWriter,
    progress: &mut Progress<'_>,
    stop: &CancellationToken,
) -> Result<Infallible, LoopEnd> {
    let started = unless_stopped(stop, start(writer))
        .await
        .ok_or(LoopEnd::Stopped)?;
    let mut builder = started?;
    let stream = writer.bus.names().output_stream(writer.partition);
    let reader = writer.bus.reader(&stream, builder.next());
    let reader = reader.with_batch_bytes(READ_BYTES);
    let mut reader = reader.read_ahead(writer.config.frames_max, decode);
    let outcomes_max = writer.config.outcomes_max;
    let mut read: VecDeque<SequencedFrame> = VecDeque::new();
    let mut prepared: Option<PreparedTurn> = None;
    progress.record_success();
    loop {
        let turn = if let Some(turn) = prepared.take() {
            turn
        } else if let Some(batch) = FrameBatch::first_of(&mut read, outcomes_max) {
            prepare(writer, &builder, batch).await?
        } else {
            let next = tokio::time::timeout(writer.config.check(), reader.next());
            match unless_stopped(stop, next).await.ok_or(LoopEnd::Stopped)? {
                Ok(Ok(Ok(frames))) => read.extend(frames),
                Ok(Ok(Err(unread))) => return Err(LoopEnd::Halted(unread)),
                Ok(Err(error)) => return Err(read_failed(error)),
                Err(_) => {
                    // Nothing to apply: check that the applied turns are still in the database.
                    if load_cursor(writer).await?.as_ref() != builder.cursor() {
                        return Err(LoopEnd::CursorChanged);
                    }
                    set_lag(writer.partition, 0);
                    progress.record_success();
                }
            }
            continue;
        };
        if stop.is_cancelled() {
            return Err(LoopEnd::Stopped);
        }
        // An undecodable frame waits until everything before it is written.
        if outcomes_of(&read) < outcomes_max
            && reader.ready().is_some_and(Result::is_ok)
            && let Some(Ok(Ok(frames))) = reader.take_ready()
        {
            read.extend(frames);
        }
        // The database writes while the next turn is built and more frames are read.
        let mut ahead = builder.clone();
        ahead.written(turn.turn.cursor.clone());
        let next = FrameBatch::first_of(&mut read, outcomes_max);
        let next = OptionFuture::from(next.map(|batch| prepare(writer, &ahead, batch)));
        let (written, next) = reader.read_during(join(write(writer, &turn), next)).await;
        written?;
        builder = ahead;
        progress.record_success();
        prepared = next.transpose()?;
        let waiting = reader.ready().and_then(|frames| frames.as_ref().ok());
        let waiting = waiting.map_or(0, Vec::len)
            + prepared.as_ref().map_or(0, PreparedTurn::frames)
            + read.len();
        set_lag(writer.partition, reader.pending() + waiting as u64);
        let is_behind = prepared.is_some() || !read.is_empty() || reader.is_behind();
        let was_full = turn.outcomes() >= outcomes_max;
        // Dropping thousands of records takes time, in which the next turn can be written.
        spawn_blocking(move || drop(turn));
        if !is_behind && !was_full {
            unless_stopped(stop, tokio::time::sleep(TURN_PAUSE)).await;
        }
    }
}

fn outcomes_of(frames: &VecDeque<SequencedFrame>) -> usize {
    frames.iter().map(|frame| frame.frame.outcomes.len()).sum()
}

async fn start(writer: &TurnWriter) -> Result<TurnBuilder, LoopEnd> {
    let cursor = load_cursor(writer).await?;
    locate(writer, cursor).await
}

async fn prepare(
    writer: &TurnWriter,
    builder: &TurnBuilder,
    batch: FrameBatch,
) -> Result<PreparedTurn, LoopEnd> {
    let prepared = writer.prepare(builder.clone(), batch).await;
    prepared.map_err(prepare_failed)
}

async fn write(writer: &TurnWriter, turn: &PreparedTurn) -> Result<(), LoopEnd> {
    match writer.write(turn).await {
        Ok(()) => Ok(()),
        Err(error @ ApplyError::Conflict { .. }) => {
            metrics::counter!("nixfleet_fence_rejections_total", "service" => "applier")
                .increment(1);
            tracing::info!(%error, "another applier wrote; reading the cursor again");
            Err(LoopEnd::CursorChanged)
        }
        Err(error) if error.schema_missing() => Err(restore_schema(writer, error.into()).await),
        Err(error) if error.retryable() => Err(LoopEnd::Retry(error.into())),
        Err(error) => Err(LoopEnd::Halted(error.into())),
    }
}

/// Classifies an error of a restore: a conflict means another applier, and servers come back, but
/// unusable checkpoints need an operator.
fn restore_failed(error: anyhow::Error) -> LoopEnd {
    let is_transient = error.chain().any(|cause| {
        cause.is::<LeaderReadError>()
            || cause.is::<CheckpointStoreError>()
            || cause.downcast_ref().is_some_and(ApplyError::retryable)
    });
    match error.downcast_ref() {
        Some(ApplyError::Conflict { .. }) => LoopEnd::CursorChanged,
        _ if is_transient => LoopEnd::Retry(error),
        _ => LoopEnd::Halted(error),
    }
}

/// Classifies an error of building a turn: the bus comes back, missing artifacts do not.
fn prepare_failed(error: anyhow::Error) -> LoopEnd {
    let is_transient = error.chain().any(|cause| {
        cause.is::<LeaderReadError>()
            || matches!(
                cause.downcast_ref(),
                Some(ManifestError::Unavailable { .. })
            )
    });
    if is_transient {
        LoopEnd::Retry(error)
    } else {
        LoopEnd::Halted(error)
    }
}

async fn load_cursor(writer: &TurnWriter) -> Result<Option<Cursor>, LoopEnd> {
    match writer.store.cursor(writer.partition).await {
        Ok(cursor) => Ok(cursor),
        Err(error) if error.schema_missing() => Err(restore_schema(writer, error.into()).await),
        Err(error @ StoreReadError::Corrupt { .. }) => Err(LoopEnd::Halted(error.into())),
        Err(error) => Err(LoopEnd::Retry(error.into())),
    }
}

/// Creates a dropped schema again; the tables are rebuilt from the log.
async fn restore_schema(writer: &TurnWriter, cause: anyhow::Error) -> LoopEnd {
    tracing::warn!(
        partition = %writer.partition,
        cause = format!("{cause:#}"),
        "the schema is missing; migrating and rebuilding from the log"
    );
    match migrate(&writer.store).await {
        Ok(()) => LoopEnd::CursorChanged,
        Err(error) => LoopEnd::Retry(error),
    }
}

/// Compares the cursor with the logs and starts behind it.
async fn locate(writer: &TurnWriter, cursor: Option<Cursor>) -> Result<TurnBuilder, LoopEnd> {
    let names = writer.bus.names();
    let (input, output) = (
        names.input_stream(writer.partition),
        names.output_stream(writer.partition),
    );
    let ask = async {
        let msg_id = match cursor.as_ref().and_then(|cursor| cursor.input) {
            Some(mark) => writer.bus.message_id_at(&input, mark.seq).await?,
            None => None,
        };
        anyhow::Ok(PartitionLogs {
            input: writer.bus.stream_identity(&input).await?,
            output: writer.bus.stream_identity(&output).await?,
            msg_id,
        })
    };
    let logs = match ask.await {
        Ok(logs) => logs,
        Err(error) => {
            return Err(LoopEnd::Retry(
                error.context("asking for the state of the logs"),
            ));
        }
    };
    if needs_checkpoint(cursor.as_ref(), &logs) {
        let previous = cursor.as_ref().map_or(0, |cursor| cursor.out_seq);
        if restore_checkpoint(writer, previous, &logs)
            .await
            .map_err(restore_failed)?
        {
            return Err(LoopEnd::CursorChanged);
        }
    }
    let started = TurnBuilder::start(cursor, &logs);
    let (builder, start) = started.map_err(|error| LoopEnd::Halted(error.into()))?;
    log_start(writer.partition, start);
    Ok(builder)
}

fn read_failed(error: ReadError) -> LoopEnd {
    match error {
        // The next comparison of cursor and logs decides where to continue.
        ReadError::Trimmed { .. }
        | ReadError::Regressed { .. }
        | ReadError::Rewritten { .. }
        | ReadError::Replaced { .. }
        // The planner creates it again.
        | ReadError::Missing { .. } => LoopEnd::Retry(error.into()),
        ReadError::Gap { .. } => LoopEnd::Halted(anyhow::Error::from(error).context(
            "the output log is damaged; once it is repaired, `nixfleet db rebuild` writes the tables again",
        )),
    }
}

fn log_start(partition: Partition, start: StartPosition) {
    match start {
        StartPosition::Continue(seq) => tracing::info!(%partition, seq, "continues at the cursor"),
        StartPosition::FromFirst(seq) => {
            tracing::info!(%partition, seq, "builds the tables from the complete log")
        }
        StartPosition::FromTrimmed(seq) => {
            tracing::warn!(%partition, seq, "builds the tables from a trimmed log");
        }
        StartPosition::AfterLoss(seq) => {
            tracing::warn!(%partition, seq, "the log was lost; continues above the cursor");
        }
    }
}

fn set_lag(partition: Partition, frames: u64) {
    metrics::gauge!("nixfleet_partition_lag_messages",
        "service" => "applier", "partition" => partition.to_string())
    .set(frames as f64);
}

/// Waits unless a stop is requested; `None` then.
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    wait: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        waited = wait => Some(waited),
    }
}
