//! Tasks that follow the output logs and the announcements of rollouts.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::{ReadError, UndecodableMessage, decode_effects};
use nixfleet_proto::fleet::RolloutAnnouncement;
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;

use crate::app_state::App;
use crate::dispatch::QueuedDispatch;

/// Name of the service in dead letters.
pub const SERVICE: &str = "ingest";
/// Pause before a failed source is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Messages taken at once.
const BATCH: usize = 256;

/// Keeps the queued dispatches and known rollouts of one partition current: rows from the database at its
/// cursor, then outcomes from the log behind it, so that nothing falls in between.
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
    let queue = app.backends.store.gateway_snapshot(partition).await?;
    let cursor = queue
        .cursors
        .iter()
        .find(|(number, _)| *number == partition);
    let out_seq = cursor.map_or(0, |(_, cursor)| cursor.out_seq);
    if out_seq == 0
        && app
            .backends
            .bus
            .checkpoints()
            .is_restoring(partition)
            .await?
    {
        anyhow::bail!("the rows of the partition are being restored from a checkpoint");
    }
    let rows = queue.dispatches.into_iter();
    let rows = rows.filter(|row| app.backends.partition(&row.rollout_id.channel()) == partition);
    app.dispatches.load(partition, rows.map(queued).collect());
    app.known_rollouts.load(partition, queue.rollouts, out_seq);
    // The log may be quiet for long, and what the rows cover is folded.
    if let Some(mark) = cursor.and_then(|(_, cursor)| cursor.input) {
        app.log.capacity.folded(partition, mark);
    }
    let stream = app.backends.bus.names().output_stream(partition);
    let mut reader = app.backends.bus.reader(&stream, out_seq + 1);
    loop {
        let batch = match reader.next_batch(BATCH).await {
            Ok(batch) => batch,
            // Nothing was ever applied, so the log's own beginning is as far back as anyone knows.
            Err(ReadError::Trimmed { first, .. }) if out_seq == 0 => {
                reader = app.backends.bus.reader(&stream, first);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for message in batch {
            match decode_effects(&message) {
                Ok(frame) => {
                    let outcomes = &frame.outcomes;
                    app.known_rollouts.follow(partition, message.seq, outcomes);
                    app.dispatches.follow(partition, outcomes);
                    if let Some(mark) = frame.last_input {
                        app.log.capacity.folded(partition, mark);
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
    let names = app.backends.bus.names().clone();
    let fleet = names.manifest_fleet();
    let mut from = 1;
    loop {
        let mut reader = app.backends.bus.reader(&names.manifest_stream(), from);
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
                    Err(error) => {
                        let letter = UndecodableMessage {
                            stream: names.manifest_stream(),
                            seq: message.seq,
                            subject: message.subject.clone(),
                            reason: error.to_string(),
                            payload: message.payload.clone(),
                        };
                        app.releases
                            .store()
                            .store_as_dead_letter(SERVICE, letter)
                            .await;
                    }
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

/// The database's row type stays out of the queue.
fn queued(row: nixfleet_store::DispatchRow) -> QueuedDispatch {
    QueuedDispatch {
        rollout_id: row.rollout_id,
        hostname: row.hostname,
        target_closure: row.target_closure,
        soak_minutes: row.soak_minutes,
        enqueued_at: row.enqueued_at,
    }
}
