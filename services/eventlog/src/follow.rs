//! One stream on its way into the archive: from its cursor on, and over again after every failure.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::{LeaderReadError, ReadError, StreamIdentity};
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;
use nixfleet_store::ArchiveError;

use crate::artifacts::Artifacts;
use crate::base::archive_base;
use crate::chunk::{BATCH_BYTES, chunks};
use crate::layout::{RETRY_AFTER, prepare};
use crate::report;
use crate::resume::resume;
use crate::shared::Shared;
use crate::stream::{Content, Stream};
use crate::turn::Archive;

/// How long a stream may be quiet before the archive is held against its cursor: longer than a reader
/// needs to find that its consumer is dead.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// Rest after a transaction that was far from full and left nothing to read: the next one covers
/// more. The archive is what is least in a hurry when a wave is released.
const REST: Duration = Duration::from_millis(250);
/// Part of a full transaction that needs no rest.
const FULL_ENOUGH: usize = 4;

/// Archives one stream until it shall stop, starting over at the cursor after every failure.
pub async fn follow(
    shared: Arc<Shared>,
    (stream, partition): (Stream, Option<Partition>),
    stop: CancellationToken,
) {
    let component = report::archive_component(&stream.name);
    while !stop.is_cancelled() {
        let failure = match archive(&shared, (&stream, partition), &stop).await {
            Failure::Again(reason) => {
                tracing::info!(stream = %stream.name, reason, "starting over at the cursor");
                pause(&stop, RETRY_AFTER).await;
                continue;
            }
            Failure::None => return,
            Failure::Stopped(reason) => reason,
        };
        tracing::error!(stream = %stream.name, reason = failure, "archiving stopped");
        report::archive_stopped(&stream.name, true);
        shared.readiness.set_ready(&component, Err(failure));
        // Somebody may have decided meanwhile; taking it up again needs no restart.
        let recheck = Duration::from_secs(shared.config.archive.recheck_seconds);
        pause(&stop, recheck).await;
    }
}

/// Waits, but not when it shall stop.
async fn pause(stop: &CancellationToken, time: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Why a stream is not being archived.
enum Failure {
    /// It shall stop.
    None,
    /// Reading the cursor again cures it.
    Again(String),
    /// Somebody has to decide.
    Stopped(String),
}

/// Archives one stream until something fails.
async fn archive(
    shared: &Shared,
    of: (&Stream, Option<Partition>),
    stop: &CancellationToken,
) -> Failure {
    match try_archive(shared, of, stop).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// What the stream is. A log that is gone as a whole is created again above everything that is remembered.
async fn identify(shared: &Shared, stream: &Stream) -> Result<StreamIdentity, Failure> {
    match shared.bus.stream_identity(&stream.name).await {
        Ok(identity) => Ok(identity),
        Err(LeaderReadError::Missing(_)) => {
            let prepared = prepare(shared).await;
            prepared.map_err(|error| Failure::Again(format!("{error:#}")))?;
            Err(Failure::Again("the stream was missing".to_owned()))
        }
        Err(error) => Err(Failure::Again(error.to_string())),
    }
}

async fn try_archive(
    shared: &Shared,
    (stream, partition): (&Stream, Option<Partition>),
    stop: &CancellationToken,
) -> Result<std::convert::Infallible, Failure> {
    let again = |error: &dyn std::fmt::Display| Failure::Again(error.to_string());
    let mark = shared.store.archive_cursor(&stream.name).await;
    let mark = mark.map_err(|error| again(&error))?;
    let identity = identify(shared, stream).await?;
    let start = resume(
        &stream.name,
        mark.as_ref(),
        identity,
        stream.is_contiguous(),
    )
    .map_err(|stop| Failure::Stopped(stop.to_string()))?;
    if let Some(notice) = start.notice {
        tracing::warn!(stream = %stream.name, archived = start.archived, next = start.next, notice);
    }
    if let (true, Content::Output, Some(partition)) = (start.is_new_part, stream.content, partition)
    {
        let base = archive_base(shared, (&stream.name, partition), start.next);
        base.await.map_err(|error| again(&format!("{error:#}")))?;
    }
    let mut archive = Archive {
        store: shared.store.clone(),
        stream: stream.clone(),
        created: identity.created,
        archived: start.archived,
        artifacts: (stream.content == Content::Manifest)
            .then(|| Artifacts::new(shared.bus.clone(), shared.store.clone())),
    };
    report::archive_stopped(&stream.name, false);
    shared
        .readiness
        .set_ready(&report::archive_component(&stream.name), Ok(()));
    let reader = shared.bus.reader(&stream.name, start.next);
    // Pieces of about a transaction: while one is written, the rows of the next are made and copied.
    let reader = reader.with_batch_bytes(BATCH_BYTES);
    let config = &shared.config.archive;
    let (of, store, batch_rows) = (stream.clone(), shared.store.clone(), config.batch_rows);
    let mut reader = reader.read_ahead(config.batch_messages, move |messages| {
        let mut chunks = chunks(&of, messages, batch_rows)?;
        if let Some(first) = chunks.first_mut() {
            first.copy_ahead(&store);
        }
        Ok(chunks)
    });
    let lag = metrics::gauge!("nixfleet_archive_lag_messages", "stream" => stream.name.clone());
    lag.set((identity.last_seq + 1).saturating_sub(start.next) as f64);
    loop {
        let chunks = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Failure::None),
            chunks = reader.next() => chunks,
            () = tokio::time::sleep(LOOK_AGAIN) => {
                // Nothing comes: see that what came is still there.
                still_archived(shared, stream, archive.archived).await?;
                continue;
            }
        };
        let chunks = chunks.map_err(|error| unreadable(&error))?;
        let chunks = chunks.map_err(|error| refused(&error))?;
        // The database writes while the next batch is on its way to it.
        let written = reader.read_during(archive.turn(chunks)).await;
        let rows = written.map_err(|error| refused(&error))?;
        lag.set(reader.pending() as f64);
        // Releases are few, and the archive is what brings them back when the log is lost.
        let may_rest = stream.content != Content::Manifest;
        if may_rest && !reader.is_behind() && rows < batch_rows / FULL_ENOUGH {
            pause(stop, REST).await;
        }
    }
}

/// A database that was lost or restored has another cursor, or none.
async fn still_archived(shared: &Shared, stream: &Stream, archived: u64) -> Result<(), Failure> {
    let mark = shared.store.archive_cursor(&stream.name).await;
    let mark = mark.map_err(|error| Failure::Again(error.to_string()))?;
    if mark.map_or(0, |mark| mark.sequence) == archived {
        return Ok(());
    }
    Err(Failure::Again(
        "the archive was lost or restored".to_owned(),
    ))
}

/// A reader's failure: holding the stream against the cursor again names the hole and its remedy.
fn unreadable(error: &ReadError) -> Failure {
    match error {
        ReadError::Gap { .. } => Failure::Stopped(format!(
            "{error}. Remedy: check the server's storage; a hole in the middle cannot be archived"
        )),
        ReadError::Trimmed { .. }
        | ReadError::Regressed { .. }
        | ReadError::Rewritten { .. }
        | ReadError::Replaced { .. }
        | ReadError::Missing { .. } => Failure::Again(error.to_string()),
    }
}

fn refused(error: &ArchiveError) -> Failure {
    match error {
        ArchiveError::Conflict { .. } => Failure::Again(error.to_string()),
        ArchiveError::Db(_) | ArchiveError::OutOfRange(_) => Failure::Stopped(format!(
            "{error}. Remedy: the database refuses what it must be able to store; look at its log"
        )),
    }
}
