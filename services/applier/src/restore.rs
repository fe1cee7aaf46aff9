//! Writing the rows of a partition from a checkpoint: for tables that are gone, or older than the log.

use anyhow::{Context as _, anyhow};
use nixfleet_applier::Logs;
use nixfleet_checkpoint::{Checkpoint, CheckpointError};
use nixfleet_proto::CheckpointRef;
use tokio::task::spawn_blocking;

use crate::turn::Turns;

/// Writes the rows of the newest checkpoint that can be used, in place of those before. `previous` is
/// the output sequence of the stored cursor, 0 when there is none. False when no checkpoint was announced.
///
/// # Errors
/// When a server does not answer, or none of the checkpoints can be used.
pub async fn restore(turns: &Turns, previous: u64, logs: &Logs) -> anyhow::Result<bool> {
    let partition = turns.partition;
    let announced = turns.bus.checkpoints().announced(partition).await?;
    if announced.is_empty() {
        return Ok(false);
    }
    let mut refused = Vec::new();
    for named in announced.newest_first() {
        match load(turns, named, logs).await? {
            Ok(checkpoint) => {
                for fault in &refused {
                    tracing::error!(%partition, fault, "an older checkpoint is used");
                }
                return write(turns, previous, checkpoint).await.map(|()| true);
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

/// One checkpoint, or why it cannot be used.
async fn load(
    turns: &Turns,
    named: &CheckpointRef,
    logs: &Logs,
) -> anyhow::Result<Result<Checkpoint, CheckpointError>> {
    let (store, partition) = (turns.bus.checkpoints(), turns.partition);
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

async fn write(turns: &Turns, previous: u64, checkpoint: Checkpoint) -> anyhow::Result<()> {
    let partition = turns.partition;
    let written = turns
        .store
        .restore_partition(partition, previous, &checkpoint.rows)
        .await?;
    let out_seq = checkpoint.rows.cursor.map_or(0, |cursor| cursor.out_seq);
    tracing::warn!(%partition, previous, out_seq, rows = written.rows,
        "the rows were written from a checkpoint");
    metrics::counter!("nixfleet_partitions_restored_total").increment(1);
    Ok(())
}
