//! Writes checkpoints on another thread while the owner continues to fold.

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{CheckpointStore, CheckpointStoreError};
use nixfleet_checkpoint::{CheckpointIdentity, EncodedCheckpoint, encode};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints};
use nixfleet_reducer::CheckpointState;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

/// Pause before a failed checkpoint is written again.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

pub struct CheckpointWriter {
    store: CheckpointStore,
    partition: Partition,
    /// At most one task; aborted when the writer is dropped.
    writing: JoinSet<anyhow::Result<CheckpointRef>>,
    deleting: JoinSet<Result<usize, CheckpointStoreError>>,
    not_before: Instant,
}

impl CheckpointWriter {
    pub fn new(store: CheckpointStore, partition: Partition) -> Self {
        Self {
            store,
            partition,
            writing: JoinSet::new(),
            deleting: JoinSet::new(),
            not_before: Instant::now(),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.writing.is_empty() && Instant::now() >= self.not_before
    }

    /// Starts to write a state.
    pub fn write(&mut self, frozen: CheckpointState) {
        let store = self.store.clone();
        self.writing.spawn(write(store, self.partition, frozen));
    }

    /// Result of the checkpoint that is being written; never completes without one.
    pub async fn written(&mut self) -> anyhow::Result<CheckpointRef> {
        let Some(written) = self.writing.join_next().await else {
            return std::future::pending().await;
        };
        let written = written.context("writing a checkpoint").flatten();
        if written.is_err() {
            self.not_before = Instant::now() + FAILED_PAUSE;
        }
        written
    }

    /// Deletes all checkpoints but these. A failed deletion is repeated with the next one.
    pub fn delete_others(&mut self, kept: Checkpoints) {
        let (store, partition) = (self.store.clone(), self.partition);
        while let Some(deleted) = self.deleting.try_join_next() {
            match deleted {
                Ok(Ok(count)) => tracing::debug!(%partition, count, "old checkpoints deleted"),
                Ok(Err(error)) => {
                    tracing::warn!(%partition, %error, "old checkpoints are not deleted")
                }
                Err(error) => tracing::warn!(%partition, %error, "old checkpoints are not deleted"),
            }
        }
        self.deleting
            .spawn(async move { store.delete_obsolete(partition, &kept).await });
    }
}

async fn write(
    store: CheckpointStore,
    partition: Partition,
    frozen: CheckpointState,
) -> anyhow::Result<CheckpointRef> {
    let started = Instant::now();
    let encoded = spawn_blocking(move || {
        let identity = CheckpointIdentity {
            partition: partition.number(),
            output_created: frozen.output_created,
            state_hash: frozen.hash(),
        };
        encode(&frozen.rows(), identity)
    });
    let encoded = encoded.await.context("encoding a checkpoint")?;
    let EncodedCheckpoint { reference, bytes } = encoded.context("encoding a checkpoint")?;
    store.put(partition, &reference, bytes.into()).await?;
    metrics::histogram!("nixfleet_checkpoint_seconds").record(started.elapsed());
    metrics::gauge!("nixfleet_checkpoint_bytes", "partition" => partition.to_string())
        .set(reference.bytes as f64);
    Ok(reference)
}
