//! Following the output log of an owned partition: read, apply, and say what happened when that cannot
//! go on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{OptionFuture, join};
use nixfleet_applier::{Batch, Follower, Frame, Logs, Start, needs_checkpoint};
use nixfleet_bus::{CheckpointStoreError, LeaderReadError, ManifestError, ReadError};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_store::{ApplyError, ReadError as StoreReadError};
use tokio::task::spawn_blocking;

use crate::database::{floors, migrate};
use crate::restore::restore;
use crate::retry::Pauses;
use crate::turn::{Prepared, Turns, decode};

/// Rest after a turn that was not full and left nothing to read: the next one has more to write at once,
/// and rows that change several times are written once. Nobody waits for rows to go on, and
/// hosts wait for their dispatches while they are written.
const REST: Duration = Duration::from_millis(200);
/// Frames are decoded in pieces of this size, more than a full turn has: while one is written, the next is
/// in the making.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// Why following ended.
pub enum Again {
    /// It shall stop, and everything begun has ended.
    Never,
    /// The cursor in the database is not ours any more: read it again, at once.
    Reload,
    /// Something is down; it comes back by itself.
    Later(anyhow::Error),
    /// Somebody has to mend it; the error names the remedy.
    Stopped(anyhow::Error),
}

/// Where success is noted.
pub struct Progress<'a> {
    pub readiness: &'a Readiness,
    pub part: &'a str,
    pub pauses: &'a mut Pauses,
}

impl Progress<'_> {
    fn good(&mut self) {
        self.readiness.set_ready(self.part, Ok(()));
        self.pauses.reset();
    }
}

/// Reads and applies from the cursor on; returns only when that cannot go on.
pub async fn follow(turns: &Turns, progress: &mut Progress<'_>, stop: &CancellationToken) -> Again {
    match try_follow(turns, progress, stop).await {
        Ok(never) => match never {},
        Err(again) => again,
    }
}

async fn try_follow(
    turns: &Turns,
    progress: &mut Progress<'_>,
    stop: &CancellationToken,
) -> Result<Infallible, Again> {
    let begun = unless(stop, begin(turns)).await.ok_or(Again::Never)?;
    let mut follower = begun?;
    let stream = turns.bus.names().output_stream(turns.partition);
    let reader = turns.bus.reader(&stream, follower.next());
    let reader = reader.with_batch_bytes(READ_BYTES);
    let mut reader = reader.read_ahead(turns.config.frames_max, decode);
    let outcomes_max = turns.config.outcomes_max;
    let mut read: VecDeque<Frame> = VecDeque::new();
    let mut prepared: Option<Prepared> = None;
    progress.good();
    loop {
        let turn = if let Some(turn) = prepared.take() {
            turn
        } else if let Some(batch) = Batch::first_of(&mut read, outcomes_max) {
            prepare(turns, &follower, batch).await?
        } else {
            let next = tokio::time::timeout(turns.config.check(), reader.next());
            match unless(stop, next).await.ok_or(Again::Never)? {
                Ok(Ok(Ok(frames))) => read.extend(frames),
                Ok(Ok(Err(unread))) => return Err(Again::Stopped(unread)),
                Ok(Err(error)) => return Err(read_failed(turns, error).await),
                Err(_) => {
                    // Nothing to apply: see that what was applied is still there.
                    if load_cursor(turns).await?.as_ref() != follower.cursor() {
                        return Err(Again::Reload);
                    }
                    lag(turns.partition, 0);
                    progress.good();
                }
            }
            continue;
        };
        if stop.is_cancelled() {
            return Err(Again::Never);
        }
        // What cannot be read waits until everything before it is written.
        if outcomes_of(&read) < outcomes_max
            && reader.ready().is_some_and(Result::is_ok)
            && let Some(Ok(Ok(frames))) = reader.take_ready()
        {
            read.extend(frames);
        }
        // The database writes while the next turn is worked out and more frames are read and decoded.
        let mut ahead = follower.clone();
        ahead.written(turn.turn.cursor.clone());
        let next = Batch::first_of(&mut read, outcomes_max);
        let next = OptionFuture::from(next.map(|batch| prepare(turns, &ahead, batch)));
        let (written, next) = reader.read_during(join(write(turns, &turn), next)).await;
        written?;
        follower = ahead;
        progress.good();
        prepared = next.transpose()?;
        let waiting = reader.ready().and_then(|frames| frames.as_ref().ok());
        let waiting = waiting.map_or(0, Vec::len)
            + prepared.as_ref().map_or(0, Prepared::frames)
            + read.len();
        lag(turns.partition, reader.pending() + waiting as u64);
        let is_behind = prepared.is_some() || !read.is_empty() || reader.is_behind();
        let was_full = turn.outcomes() >= outcomes_max;
        // Letting go of thousands of records takes a while, in which the next turn can be written.
        spawn_blocking(move || drop(turn));
        if !is_behind && !was_full {
            unless(stop, tokio::time::sleep(REST)).await;
        }
    }
}

fn outcomes_of(frames: &VecDeque<Frame>) -> usize {
    frames.iter().map(|frame| frame.frame.outcomes.len()).sum()
}

/// Begins behind the stored cursor.
async fn begin(turns: &Turns) -> Result<Follower, Again> {
    let cursor = load_cursor(turns).await?;
    locate(turns, cursor).await
}

async fn prepare(turns: &Turns, follower: &Follower, batch: Batch) -> Result<Prepared, Again> {
    let prepared = turns.prepare(follower.clone(), batch).await;
    prepared.map_err(prepare_failed)
}

async fn write(turns: &Turns, turn: &Prepared) -> Result<(), Again> {
    match turns.write(turn).await {
        Ok(()) => Ok(()),
        Err(error @ ApplyError::Conflict { .. }) => {
            metrics::counter!("nixfleet_fence_rejections_total", "service" => "applier")
                .increment(1);
            tracing::info!(%error, "another applier was here, reading its cursor");
            Err(Again::Reload)
        }
        Err(error) if error.schema_missing() => Err(restore_schema(turns, error.into()).await),
        Err(error) if error.retryable() => Err(Again::Later(error.into())),
        Err(error) => Err(Again::Stopped(error.into())),
    }
}

/// Another applier may have been here, and servers come back; checkpoints that cannot be used do not.
fn restore_failed(error: anyhow::Error) -> Again {
    let is_transient = error.chain().any(|cause| {
        cause.is::<LeaderReadError>()
            || cause.is::<CheckpointStoreError>()
            || cause.downcast_ref().is_some_and(ApplyError::retryable)
    });
    match error.downcast_ref() {
        Some(ApplyError::Conflict { .. }) => Again::Reload,
        _ if is_transient => Again::Later(error),
        _ => Again::Stopped(error),
    }
}

/// A bus that does not answer comes back; bytes nobody stored do not.
fn prepare_failed(error: anyhow::Error) -> Again {
    let is_transient = error.chain().any(|cause| {
        cause.is::<LeaderReadError>()
            || matches!(
                cause.downcast_ref(),
                Some(ManifestError::Unavailable { .. })
            )
    });
    if is_transient {
        Again::Later(error)
    } else {
        Again::Stopped(error)
    }
}

async fn load_cursor(turns: &Turns) -> Result<Option<Cursor>, Again> {
    match turns.store.cursor(turns.partition).await {
        Ok(cursor) => Ok(cursor),
        Err(error) if error.schema_missing() => Err(restore_schema(turns, error.into()).await),
        Err(error @ StoreReadError::Corrupt { .. }) => Err(Again::Stopped(error.into())),
        Err(error) => Err(Again::Later(error.into())),
    }
}

/// Somebody dropped the schema: create it again and rebuild from the log.
async fn restore_schema(turns: &Turns, cause: anyhow::Error) -> Again {
    tracing::warn!(
        partition = %turns.partition,
        cause = format!("{cause:#}"),
        "the schema is gone, migrating and rebuilding from the log"
    );
    match migrate(&turns.store).await {
        Ok(()) => Again::Reload,
        Err(error) => Again::Later(error),
    }
}

/// Compares the cursor with the logs and starts behind it.
async fn locate(turns: &Turns, cursor: Option<Cursor>) -> Result<Follower, Again> {
    let names = turns.bus.names();
    let (input, output) = (
        names.input_stream(turns.partition),
        names.output_stream(turns.partition),
    );
    let ask = async {
        let msg_id = match cursor.as_ref().and_then(|cursor| cursor.input) {
            Some(mark) => turns.bus.message_id_at(&input, mark.seq).await?,
            None => None,
        };
        anyhow::Ok(Logs {
            input: turns.bus.stream_identity(&input).await?,
            output: turns.bus.stream_identity(&output).await?,
            msg_id,
        })
    };
    let logs = match ask.await {
        Ok(logs) => logs,
        Err(error) => {
            restore_layout(turns).await?;
            return Err(Again::Later(
                error.context("asking for the state of the logs"),
            ));
        }
    };
    if needs_checkpoint(cursor.as_ref(), &logs) {
        let previous = cursor.as_ref().map_or(0, |cursor| cursor.out_seq);
        if restore(turns, previous, &logs)
            .await
            .map_err(restore_failed)?
        {
            return Err(Again::Reload);
        }
    }
    let started = Follower::start(cursor, &logs);
    let (follower, start) = started.map_err(|error| Again::Stopped(error.into()))?;
    announce(turns.partition, start);
    Ok(follower)
}

async fn read_failed(turns: &Turns, error: ReadError) -> Again {
    match error {
        // Where to go on is for the guard to say.
        ReadError::Trimmed { .. }
        | ReadError::Regressed { .. }
        | ReadError::Rewritten { .. }
        | ReadError::Replaced { .. } => Again::Later(error.into()),
        ReadError::Missing { .. } => match restore_layout(turns).await {
            Ok(()) => Again::Later(error.into()),
            Err(again) => again,
        },
        ReadError::Gap { .. } => Again::Stopped(anyhow::Error::from(error).context(
            "the output log is damaged; once it is mended, `nixfleet db rebuild` writes the tables again",
        )),
    }
}

/// Creates streams that are gone, above the cursors.
async fn restore_layout(turns: &Turns) -> Result<(), Again> {
    let floors = floors(&turns.store, turns.bus.names())
        .await
        .map_err(|error| Again::Later(error.into()))?;
    turns
        .bus
        .ensure_layout(&floors)
        .await
        .context("creating the streams again")
        .map_err(Again::Later)
}

fn announce(partition: Partition, start: Start) {
    match start {
        Start::Continue(seq) => tracing::info!(%partition, seq, "continues"),
        Start::FromFirst(seq) => tracing::info!(%partition, seq, "builds from the whole log"),
        Start::FromTrimmed(seq) => {
            tracing::warn!(%partition, seq, "rebuilds from a log whose beginning is gone");
        }
        Start::AfterLoss(seq) => {
            tracing::warn!(%partition, seq, "the log was lost; goes on above the cursor");
        }
    }
}

fn lag(partition: Partition, frames: u64) {
    let labels = [
        ("service", "applier".to_owned()),
        ("partition", partition.to_string()),
    ];
    metrics::gauge!("nixfleet_partition_lag_entries", &labels).set(frames as f64);
}

/// Waits, but not when it shall stop. Nothing when it does.
pub async fn unless<T>(stop: &CancellationToken, wait: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        waited = wait => Some(waited),
    }
}
