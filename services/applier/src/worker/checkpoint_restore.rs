//! Restores rows from a checkpoint, when tables are empty or end before the log begins.

use anyhow::{Context as _, anyhow};
use nixfleet_applier::PartitionLogs;
use nixfleet_checkpoint::{Checkpoint, CheckpointError};
use nixfleet_proto::CheckpointRef;
use tokio::task::spawn_blocking;

use crate::turn_writer::TurnWriter;

/// Replaces the rows by those of the newest usable checkpoint. `previous` is the output sequence of
/// the stored cursor, 0 for none. False when no checkpoint was announced.
///
/// # Errors
/// When a server does not answer, or no checkpoint is usable.
pub async fn restore_checkpoint(
    writer: &TurnWriter,
    previous: u64,
    logs: &PartitionLogs,
) -> anyhow::Result<bool> {
    let partition = writer.partition;
    let announced = writer.bus.checkpoints().announced(partition).await?;
    if announced.is_empty() {
        return Ok(false);
    }
    let mut refused = Vec::new();
    for named in announced.newest_first() {
        match load(writer, named, logs).await? {
            Ok(checkpoint) => {
                for fault in &refused {
                    tracing::error!(%partition, fault, "a checkpoint cannot be used; using an older one");
                }
                return write(writer, previous, checkpoint).await.map(|()| true);
            }
            Err(fault) => refused.push(format!("checkpoint {}: {fault}", named.hash)),
        }
    }
    Err(anyhow!(
        "the log was trimmed behind the tables, and no checkpoint can be used ({}): restore a newer \
         backup of the database, or empty the store of NATS as well, so that hosts and releases are \
         reported again",
        refused.join("; ")
    ))
}

/// Loads a checkpoint, or states why it cannot be used.
async fn load(
    writer: &TurnWriter,
    named: &CheckpointRef,
    logs: &PartitionLogs,
) -> anyhow::Result<Result<Checkpoint, CheckpointError>> {
    let (store, partition) = (writer.bus.checkpoints(), writer.partition);
    let Some(bytes) = store.get(partition, named).await? else {
        return Ok(Err(CheckpointError::Missing));
    };
    let (named, number) = (named.clone(), partition.number());
    let read = spawn_blocking(move || Checkpoint::decode(&bytes, number, &named));
    let read = read.await.context("reading a checkpoint")?;
    Ok(read.and_then(|checkpoint| {
        let (input, output) = (&logs.input, &logs.output);
        checkpoint.check_logs(input.created, output.created, output.first_seq)?;
        Ok(checkpoint)
    }))
}

async fn write(writer: &TurnWriter, previous: u64, checkpoint: Checkpoint) -> anyhow::Result<()> {
    let partition = writer.partition;
    let written = writer
        .store
        .restore_partition(partition, previous, &checkpoint.rows)
        .await?;
    let out_seq = checkpoint.rows.cursor.map_or(0, |cursor| cursor.out_seq);
    tracing::warn!(%partition, previous, out_seq, rows = written.rows,
        "the rows were restored from a checkpoint");
    metrics::counter!("nixfleet_partitions_restored_total").increment(1);
    Ok(())
}
