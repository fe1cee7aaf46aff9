//! Loads the view at the cursors of the database.

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use nixfleet_bus::Bus;
use nixfleet_plan::FleetView;
use nixfleet_proto::snapshot::{Cursor, Origin, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_store::Store;

use crate::view::pinned_manifests::PinnedManifests;

/// The view of the rows, and the positions at which the output logs continue.
pub struct Loaded {
    pub view: FleetView,
    /// The first output sequence that is not in the view, by partition.
    pub next_output: Vec<(Partition, u64)>,
    /// Origin of the rows, by partition.
    pub origins: Vec<(Partition, Origin)>,
}

/// Loads the view: each partition in a transaction; their logs bring all to the same time.
///
/// # Errors
/// When a server fails, an artifact is missing, or a log does not belong to the rows.
pub async fn load(
    bus: &Bus,
    store: &Store,
    pinned: &mut PinnedManifests,
) -> anyhow::Result<Loaded> {
    ensure_layout(bus, store).await?;
    let mut loaded = Loaded {
        view: FleetView::new(),
        next_output: Vec::new(),
        origins: Vec::new(),
    };
    // Concurrent, up to the connections of the pool, as most of the time is spent waiting.
    let rows = Partition::all(bus.partitions()).map(|partition| async move {
        let read = read_partition(bus, store, partition).await;
        read.with_context(|| format!("loading partition {partition}"))
    });
    for rows in try_join_all(rows).await? {
        for rollout in &rows.snapshot.rollouts {
            if rollout.pinned.is_none() {
                pinned.fetch(&rollout.manifest_hash, None).await?;
            }
        }
        loaded.next_output.push((rows.partition, rows.next));
        loaded.origins.push((rows.partition, rows.origin));
        loaded
            .view
            .load(rows.partition, rows.snapshot, pinned.set())?;
    }
    Ok(loaded)
}

/// Rows of one partition, and the position at which its log continues.
struct Rows {
    partition: Partition,
    snapshot: PartitionSnapshot,
    next: u64,
    origin: Origin,
}

async fn read_partition(bus: &Bus, store: &Store, partition: Partition) -> anyhow::Result<Rows> {
    let snapshot = store.load_partition(partition).await?;
    let (next, origin) = match &snapshot.cursor {
        Some(cursor) => (check_log(bus, partition, cursor).await?, cursor.origin),
        // An empty database is rebuilt from the frames that the log holds.
        None => {
            ensure!(
                !bus.checkpoints().is_restoring(partition).await?,
                "the rows of partition {partition} are being restored from a checkpoint"
            );
            let stream = bus.names().output_stream(partition);
            let first_seq = bus.stream_identity(&stream).await?.first_seq;
            (first_seq, Origin::of_log(first_seq))
        }
    };
    Ok(Rows {
        partition,
        snapshot,
        next,
        origin,
    })
}

/// The first output sequence behind the rows. Refuses a log whose sequences belong to other
/// messages; a log that was lost and created again above the rows continues there.
async fn check_log(bus: &Bus, partition: Partition, cursor: &Cursor) -> anyhow::Result<u64> {
    let names = (
        bus.names().input_stream(partition),
        bus.names().output_stream(partition),
    );
    let input = bus.stream_identity(&names.0).await?;
    let output = bus.stream_identity(&names.1).await?;
    let covered = cursor.input.map_or(0, |mark| mark.seq);
    let next = cursor.out_seq + 1;
    if input.created != cursor.stream_created {
        ensure!(
            input.first_seq > covered && output.first_seq >= next,
            "{} was created again at {} and the rows cover {covered}: empty the store of NATS, so \
             that its streams are created above the rows",
            names.0,
            input.first_seq,
        );
        return Ok(output.first_seq);
    }
    ensure!(
        output.last_seq >= cursor.out_seq,
        "{} ends at {}, the rows are at {}: the log lost its end; empty the store of NATS, so that its \
         streams are created above the rows",
        names.1,
        output.last_seq,
        cursor.out_seq,
    );
    Ok(next)
}

/// Creates missing streams above every position that the rows cover.
async fn ensure_layout(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let covered = store.covered_sequences(bus.names()).await;
    let covered = covered.context("reading what tables and archive cover")?;
    bus.ensure_layout(&covered.into_iter().collect())
        .await
        .context("checking the layout of the bus")
}
