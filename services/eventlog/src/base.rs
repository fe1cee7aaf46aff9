//! The checkpoint from which the archive of an output stream can be replayed, where the archive does not
//! go on from what it has.

use anyhow::{Context as _, anyhow};
use nixfleet_proto::subject::Partition;

use crate::shared::Shared;

/// Archives the oldest announced checkpoint that the stream from `first` on continues. Without any the
/// archive begins with what the stream holds.
///
/// # Errors
/// When a server does not answer, or the object of every checkpoint is missing.
pub async fn archive_base(
    shared: &Shared,
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
                "an announced checkpoint is not stored"
            );
            continue;
        };
        let archived = shared.store.archive_base(stream, first, (named, &bytes));
        archived.await.context("archiving a checkpoint")?;
        tracing::info!(
            stream,
            first,
            out_seq = named.out_seq,
            "a replay of the archive goes on from this checkpoint"
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
