//! The tasks that keep the process current from the bus.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::{LayoutError, ReadError, SequenceFloors, decode_effects};
use nixfleet_proto::fleet::RolloutAnnouncement;
use nixfleet_proto::subject::Partition;
use nixfleet_service::{CancellationToken, Readiness};

use crate::board::QueuedDispatch;
use crate::state::App;

/// Name of the part in health reports.
pub const LAYOUT: &str = "layout";

/// Pause before a failed source is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Messages taken at once.
const BATCH: usize = 256;
/// How often the database and the bus are asked whether they are there.
const CHECK: Duration = Duration::from_secs(2);

/// Keeps the streams there, those of this configuration. What the database remembers decides where
/// new ones begin, so without it nothing is created.
///
/// # Errors
/// When the fleet was set up otherwise: going on would put entries into wrong partitions.
pub fn layout(
    app: &Arc<App>,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LayoutError>> + Send + use<> {
    let reading = Arc::clone(app);
    let remembered = move || {
        let app = Arc::clone(&reading);
        async move {
            let floors = remembered(&app).await;
            floors.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        }
    };
    app.bus.maintain_layout(remembered, stop)
}

/// The positions that tables and archive cover.
async fn remembered(app: &App) -> Result<SequenceFloors, nixfleet_store::ReadError> {
    app.store.schema_ready().await?;
    let floors = SequenceFloors::of_cursors(app.bus.names(), &app.store.cursors().await?);
    let archived = app.store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
}

/// Keeps the queued dispatches of one partition current: rows from the database at its cursor, then
/// outcomes from the log behind it, so that nothing falls in between.
pub async fn dispatches(app: Arc<App>, partition: Partition, stop: CancellationToken) {
    loop {
        let followed = tokio::select! {
            () = stop.cancelled() => return,
            followed = follow_dispatches(&app, partition) => followed,
        };
        if let Err(error) = followed {
            tracing::warn!(%partition, error = format!("{error:#}"), "dispatches start over");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn follow_dispatches(app: &App, partition: Partition) -> anyhow::Result<()> {
    let board = app.store.dispatches().await?;
    let cursor = board
        .cursors
        .iter()
        .find(|(number, _)| *number == partition);
    let out_seq = cursor.map_or(0, |(_, cursor)| cursor.out_seq);
    if out_seq == 0 && app.bus.checkpoints().is_restoring(partition).await? {
        anyhow::bail!("the rows of the partition are being restored from a checkpoint");
    }
    let rows = board.dispatches.into_iter();
    let rows = rows.filter(|row| app.partition(&row.rollout_id.channel()) == partition);
    app.dispatches.load(partition, rows.map(queued).collect());
    // The log may be quiet for long, and what the rows cover is folded.
    if let Some(mark) = cursor.and_then(|(_, cursor)| cursor.input) {
        app.log_room.folded(partition, mark);
    }
    let stream = app.bus.names().output_stream(partition);
    let mut reader = app.bus.reader(&stream, out_seq + 1);
    loop {
        let batch = match reader.next_batch(BATCH).await {
            Ok(batch) => batch,
            // Nothing was ever applied, so the log's own beginning is as far back as anyone knows.
            Err(ReadError::Trimmed { first, .. }) if out_seq == 0 => {
                reader = app.bus.reader(&stream, first);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for message in batch {
            match decode_effects(&message) {
                Ok(frame) => {
                    app.dispatches.follow(partition, &frame.outcomes);
                    if let Some(mark) = frame.last_input {
                        app.log_room.folded(partition, mark);
                    }
                }
                // The reducer and the applier stop loudly on it; a gateway that stops too helps nobody.
                Err(error) => {
                    tracing::warn!(%partition, seq = message.seq, %error, "frame skipped")
                }
            }
        }
    }
}

/// Remembers every announced rollout manifest, so that older ones can be fetched too.
pub async fn rollouts(app: Arc<App>, stop: CancellationToken) {
    let names = app.bus.names().clone();
    let fleet = names.manifest_fleet();
    let mut from = 1;
    loop {
        let mut reader = app.bus.reader(&names.manifest_stream(), from);
        let error = loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = reader.next_batch(BATCH) => batch,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => break error,
            };
            for message in batch.iter().filter(|message| message.subject != fleet) {
                match serde_json::from_slice::<RolloutAnnouncement>(&message.payload) {
                    Ok(rollout) => app.releases.remember(rollout.rollout_id, rollout.artifact),
                    Err(error) => tracing::warn!(seq = message.seq, %error, "announcement skipped"),
                }
            }
        };
        if let ReadError::Trimmed { first, .. } = error {
            from = first;
            continue;
        }
        tracing::warn!(%error, "rollout announcements start over");
        from = 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// States whether bus, database and dispatch queue are there.
pub async fn health(app: Arc<App>, health: Readiness, stop: CancellationToken) {
    let mut tick = tokio::time::interval(CHECK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        health.set_ready("bus", app.bus.check());
        health.set_ready(LAYOUT, app.bus.check_layout());
        let database = app.store.schema_ready().await;
        health.set_ready("database", database.map_err(|error| error.to_string()));
        let loaded = app.dispatches.is_loaded();
        let dispatches = loaded
            .then_some(())
            .ok_or("the queue is not loaded yet".to_owned());
        health.set_ready("dispatches", dispatches);
    }
}

/// The database's row type stays out of the board.
fn queued(row: nixfleet_store::DispatchRow) -> QueuedDispatch {
    QueuedDispatch {
        rollout_id: row.rollout_id,
        hostname: row.hostname,
        target_closure: row.target_closure,
        soak_minutes: row.soak_minutes,
        enqueued_at: row.enqueued_at,
    }
}
