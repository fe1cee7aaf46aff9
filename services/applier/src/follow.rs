//! Following the output log of an owned partition: read, apply, and say what happened when that cannot
//! go on.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_applier::{Batch, Follower, Logs, Start, batches};
use nixfleet_bus::{LeaderError, ManifestError, ReadError};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_service::{CancellationToken, Health};
use nixfleet_store::{ApplyError, ReadError as StoreReadError};

use crate::retry::Pauses;
use crate::run::{floors, migrate};
use crate::turn::{Turns, decode};

/// Rest after a turn that was far from full and left nothing to read: the next one has more to write
/// at once, and rows that change several times are written once. Nobody waits for rows to go on, and
/// hosts wait for their dispatches while they are written.
const REST: Duration = Duration::from_millis(200);
/// Part of a full turn that needs no rest.
const FULL_ENOUGH: usize = 4;

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
    pub health: &'a Health,
    pub part: &'a str,
    pub pauses: &'a mut Pauses,
}

impl Progress<'_> {
    fn good(&mut self) {
        self.health.set_ready(self.part, Ok(()));
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
    let mut reader = reader.ahead(turns.config.frames_max, decode);
    progress.good();
    loop {
        let next = tokio::time::timeout(turns.config.check(), reader.next());
        let frames = match unless(stop, next).await.ok_or(Again::Never)? {
            Ok(Ok(Ok(frames))) => frames,
            Ok(Ok(Err(unread))) => return Err(Again::Stopped(unread)),
            Ok(Err(error)) => return Err(read_failed(turns, error).await),
            Err(_) => {
                // Nothing to apply: see that what was applied is still there.
                if load_cursor(turns).await?.as_ref() != follower.cursor() {
                    return Err(Again::Reload);
                }
                lag(turns.partition, 0);
                progress.good();
                continue;
            }
        };
        let outcomes: usize = frames.iter().map(|frame| frame.frame.outcomes.len()).sum();
        for batch in batches(frames, turns.config.outcomes_max) {
            if stop.is_cancelled() {
                return Err(Again::Never);
            }
            // The database writes while the next frames are read and decoded.
            let cursor = reader.during(apply(turns, &batch, &follower)).await?;
            follower.written(cursor);
            progress.good();
        }
        let read = reader.ready().and_then(|frames| frames.as_ref().ok());
        let waiting = read.map_or(0, Vec::len) as u64;
        lag(turns.partition, reader.pending() + waiting);
        if !reader.is_behind() && outcomes < turns.config.outcomes_max / FULL_ENOUGH {
            unless(stop, tokio::time::sleep(REST)).await;
        }
    }
}

/// Begins behind the stored cursor.
async fn begin(turns: &Turns) -> Result<Follower, Again> {
    let cursor = load_cursor(turns).await?;
    locate(turns, cursor).await
}

async fn apply(turns: &Turns, batch: &Batch, follower: &Follower) -> Result<Cursor, Again> {
    let prepared = turns.prepare(follower, batch).await;
    let turn = prepared.map_err(prepare_failed)?;
    match turns.write(batch, &turn).await {
        Ok(()) => Ok(turn.cursor),
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

/// A bus that does not answer comes back; bytes nobody stored do not.
fn prepare_failed(error: anyhow::Error) -> Again {
    let is_transient = error.chain().any(|cause| {
        cause.is::<LeaderError>()
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
