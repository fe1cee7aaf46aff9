//! Archives one stream: from its cursor on, and again from there after every failure.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::{LeaderReadError, ReadError, StreamIdentity};
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;
use nixfleet_store::ArchiveError;

use crate::archive::artifacts::Artifacts;
use crate::archive::base_checkpoint::archive_base_checkpoint;
use crate::archive::prepared_batch::{BATCH_BYTES, prepare_batches};
use crate::archive::resume_point::find_resume_point;
use crate::archive_writer::ArchiveWriter;
use crate::stream::{Content, Stream};
use crate::stream_layout::{RETRY_AFTER, prepare};
use crate::task_context::TaskContext;
use crate::telemetry;

/// Time without messages after which the cursor is compared with the archive: longer than a reader
/// takes to detect a lost consumer.
const CHECK_CURSOR_AFTER: Duration = Duration::from_secs(20);
/// Pause after a small transaction with nothing left to read: the next one covers more messages.
/// The archive has the least urgency while a wave is released.
const TURN_PAUSE: Duration = Duration::from_millis(250);
/// Divisor of a full transaction that gives the smallest one without a pause.
const FULL_DIVISOR: usize = 4;

/// Archives one stream until stopped, and starts over at the cursor after every failure.
pub async fn archive_stream(
    shared: Arc<TaskContext>,
    (stream, partition): (Stream, Option<Partition>),
    stop: CancellationToken,
) {
    let component = telemetry::archive_component(&stream.name);
    while !stop.is_cancelled() {
        let reason = match archive(&shared, (&stream, partition), &stop).await {
            ArchivingEnd::Retry(reason) => {
                tracing::info!(stream = %stream.name, reason, "archiving failed; starting over at the cursor");
                sleep_unless_stopped(&stop, RETRY_AFTER).await;
                continue;
            }
            ArchivingEnd::Stopped => return,
            ArchivingEnd::Halted(reason) => reason,
        };
        tracing::error!(stream = %stream.name, reason, "archiving stopped until an operator acts");
        telemetry::set_archive_stopped(&stream.name, true);
        shared.readiness.set_ready(&component, Err(reason));
        // An operator may have acted meanwhile; a retry needs no restart.
        let recheck = Duration::from_secs(shared.config.archive.recheck_seconds);
        sleep_unless_stopped(&stop, recheck).await;
    }
}

async fn sleep_unless_stopped(stop: &CancellationToken, time: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Why archiving a stream ended.
enum ArchivingEnd {
    Stopped,
    /// Retry from the cursor.
    Retry(String),
    /// An operator has to act.
    Halted(String),
}

/// Archives one stream until it fails or is stopped.
async fn archive(
    shared: &TaskContext,
    of: (&Stream, Option<Partition>),
    stop: &CancellationToken,
) -> ArchivingEnd {
    match try_archive(shared, of, stop).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Identity of the stream. A missing stream is created again above every archived position.
async fn identify(shared: &TaskContext, stream: &Stream) -> Result<StreamIdentity, ArchivingEnd> {
    match shared.bus.stream_identity(&stream.name).await {
        Ok(identity) => Ok(identity),
        Err(LeaderReadError::Missing(_)) => {
            let prepared = prepare(shared).await;
            prepared.map_err(|error| ArchivingEnd::Retry(format!("{error:#}")))?;
            Err(ArchivingEnd::Retry("the stream was missing".to_owned()))
        }
        Err(error) => Err(ArchivingEnd::Retry(error.to_string())),
    }
}

async fn try_archive(
    shared: &TaskContext,
    (stream, partition): (&Stream, Option<Partition>),
    stop: &CancellationToken,
) -> Result<std::convert::Infallible, ArchivingEnd> {
    let again = |error: &dyn std::fmt::Display| ArchivingEnd::Retry(error.to_string());
    let mark = shared.store.archive_cursor(&stream.name).await;
    let mark = mark.map_err(|error| again(&error))?;
    let identity = identify(shared, stream).await?;
    let resume = find_resume_point(
        &stream.name,
        mark.as_ref(),
        identity,
        stream.is_contiguous(),
    )
    .map_err(|error| ArchivingEnd::Halted(error.to_string()))?;
    if let Some(notice) = resume.notice {
        tracing::warn!(stream = %stream.name, archived = resume.archived, next = resume.next, notice);
    }
    if let (true, Content::Output, Some(partition)) =
        (resume.is_new_part, stream.content, partition)
    {
        let base = archive_base_checkpoint(shared, (&stream.name, partition), resume.next);
        base.await.map_err(|error| again(&format!("{error:#}")))?;
    }
    let mut archive = ArchiveWriter {
        store: shared.store.clone(),
        stream: stream.clone(),
        created: identity.created,
        archived: resume.archived,
        artifacts: (stream.content == Content::Manifest)
            .then(|| Artifacts::new(shared.bus.clone(), shared.store.clone())),
    };
    telemetry::set_archive_stopped(&stream.name, false);
    shared
        .readiness
        .set_ready(&telemetry::archive_component(&stream.name), Ok(()));
    let reader = shared.bus.reader(&stream.name, resume.next);
    // Batches of about one transaction: rows of the next are built and copied while one is written.
    let reader = reader.with_batch_bytes(BATCH_BYTES);
    let config = &shared.config.archive;
    let (of, store, batch_rows) = (stream.clone(), shared.store.clone(), config.batch_rows);
    let mut reader = reader.read_ahead(config.batch_messages, move |messages| {
        let mut batches = prepare_batches(&of, messages, batch_rows)?;
        if let Some(first) = batches.first_mut() {
            first.copy_ahead(&store);
        }
        Ok(batches)
    });
    let lag = metrics::gauge!("nixfleet_archive_lag_messages", "stream" => stream.name.clone());
    lag.set((identity.last_seq + 1).saturating_sub(resume.next) as f64);
    loop {
        let batches = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ArchivingEnd::Stopped),
            batches = reader.next() => batches,
            () = tokio::time::sleep(CHECK_CURSOR_AFTER) => {
                // No messages: check that the archived ones are still there.
                check_cursor(shared, stream, archive.archived).await?;
                continue;
            }
        };
        let batches = batches.map_err(|error| read_failed(&error))?;
        let batches = batches.map_err(|error| archive_failed(&error))?;
        // The database writes while the next batch is read.
        let written = reader.read_during(archive.turn(batches)).await;
        let rows = written.map_err(|error| archive_failed(&error))?;
        lag.set(reader.pending() as f64);
        // Releases are few, and the archive restores them after a loss of the log.
        let may_rest = stream.content != Content::Manifest;
        if may_rest && !reader.is_behind() && rows < batch_rows / FULL_DIVISOR {
            sleep_unless_stopped(stop, TURN_PAUSE).await;
        }
    }
}

/// Checks the stored cursor: a lost or restored database has another one, or none.
async fn check_cursor(
    shared: &TaskContext,
    stream: &Stream,
    archived: u64,
) -> Result<(), ArchivingEnd> {
    let mark = shared.store.archive_cursor(&stream.name).await;
    let mark = mark.map_err(|error| ArchivingEnd::Retry(error.to_string()))?;
    if mark.map_or(0, |mark| mark.sequence) == archived {
        return Ok(());
    }
    Err(ArchivingEnd::Retry(
        "the archive was lost or restored".to_owned(),
    ))
}

/// Classifies a reader error: the next comparison with the cursor names a gap and its remedy.
fn read_failed(error: &ReadError) -> ArchivingEnd {
    match error {
        ReadError::Gap { .. } => ArchivingEnd::Halted(format!(
            "{error}. Remedy: check the server's storage; a gap in the middle cannot be archived"
        )),
        ReadError::Trimmed { .. }
        | ReadError::Regressed { .. }
        | ReadError::Rewritten { .. }
        | ReadError::Replaced { .. }
        | ReadError::Missing { .. } => ArchivingEnd::Retry(error.to_string()),
    }
}

fn archive_failed(error: &ArchiveError) -> ArchivingEnd {
    match error {
        ArchiveError::Conflict { .. } => ArchivingEnd::Retry(error.to_string()),
        ArchiveError::Db(_) | ArchiveError::OutOfRange(_) => ArchivingEnd::Halted(format!(
            "{error}. Remedy: the database refuses what it must be able to store; look at its log"
        )),
    }
}
