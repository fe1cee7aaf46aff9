//! Archives a base: the checkpoint from which a replay starts behind a gap.

use anyhow::{Context as _, anyhow};
use nixfleet_proto::subject::Partition;

use crate::task_context::TaskContext;

/// Archives the oldest announced checkpoint that the stream from `first` on continues. Without a
/// checkpoint the archive begins with the first message of the stream.
///
/// # Errors
/// When a server does not answer, or the object of every checkpoint is missing.
pub async fn archive_base_checkpoint(
    shared: &TaskContext,
    (stream, partition): (&str, Partition),
    first: u64,
) -> anyhow::Result<()> {
    let store = shared.bus.checkpoints();
    let announced = store.announced(partition).await?;
    let continued = |named: &&nixfleet_proto::CheckpointRef| named.next_output() >= first;
    let oldest_first = announced.previous.iter().chain(&announced.last);
    let candidates: Vec<_> = oldest_first.filter(continued).collect();
    for named in &candidates {
        let Some(bytes) = store.get(partition, named).await? else {
            tracing::error!(
                stream,
                hash = named.hash,
                "an announced checkpoint is not in the object store"
            );
            continue;
        };
        let archived = shared.store.archive_base(stream, first, (named, &bytes));
        archived.await.context("archiving a checkpoint")?;
        tracing::info!(
            stream,
            first,
            out_seq = named.out_seq,
            "archived a checkpoint as base: a replay starts there"
        );
        return Ok(());
    }
    match candidates.first() {
        Some(_) => Err(anyhow!(
            "no announced checkpoint of {stream} is in the object store"
        )),
        None => Ok(()),
    }
}
