//! Checkpoints in the object store: writing, reading and deleting obsolete ones.

use std::collections::BTreeSet;

use async_nats::jetstream::object_store::{ObjectInfo, ObjectStore};
use bytes::Bytes;
use futures::TryStreamExt as _;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints, OutputFrame};

use crate::Bus;
use crate::frame::decode::decode_output;
use crate::object_store::chunks;
use crate::object_store::obsolete_checkpoints::{StoredCheckpoint, obsolete_checkpoints};
use crate::reader::leader_reads::LeaderReadError;

/// Why a checkpoint cannot be stored or loaded; a retry may help.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint {name} cannot be {verb}: {reason}")]
pub struct CheckpointStoreError {
    name: String,
    verb: &'static str,
    reason: String,
}

/// Access to the checkpoints of all partitions; cheap to clone.
#[derive(Clone)]
pub struct CheckpointStore {
    bus: Bus,
}

impl CheckpointStore {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Stores a checkpoint under its name. Storing it again has no effect.
    pub async fn put(
        &self,
        partition: Partition,
        named: &CheckpointRef,
        bytes: Bytes,
    ) -> Result<(), CheckpointStoreError> {
        let name = name(partition, named);
        let fail = |reason: String| error(&name, "stored", reason);
        if self.holds(partition, named).await? {
            return Ok(());
        }
        let context = &self.bus.connections().consume_js;
        let place = (self.bus.names().checkpoint_bucket(), name.as_str());
        chunks::write(context, place, bytes, None)
            .await
            .map_err(fail)
    }

    /// True when the store has the object with the expected size.
    pub async fn holds(
        &self,
        partition: Partition,
        named: &CheckpointRef,
    ) -> Result<bool, CheckpointStoreError> {
        let name = name(partition, named);
        let fail = |reason: String| error(&name, "looked up", reason);
        let info = self.info(&name, named.bytes).await.map_err(fail)?;
        Ok(info.is_some())
    }

    /// The bytes of a checkpoint; `None` when there is no object with its name and size. The caller checks
    /// the hash.
    pub async fn get(
        &self,
        partition: Partition,
        named: &CheckpointRef,
    ) -> Result<Option<Bytes>, CheckpointStoreError> {
        let name = name(partition, named);
        let fail = |reason: String| error(&name, "loaded", reason);
        let Some(info) = self.info(&name, named.bytes).await.map_err(fail)? else {
            return Ok(None);
        };
        let context = &self.bus.connections().consume_js;
        let read = chunks::read(context, &info).await;
        read.map(Some).map_err(|fault| fail(fault.into()))
    }

    /// Deletes the checkpoints of a partition that are older than each of these, and returns their number.
    pub async fn delete_obsolete(
        &self,
        partition: Partition,
        kept: &Checkpoints,
    ) -> Result<usize, CheckpointStoreError> {
        let all = format!("{partition}.");
        let fail = |reason: String| error(&all, "listed", reason);
        let store = self.store().await.map_err(fail)?;
        let kept: BTreeSet<String> = kept
            .newest_first()
            .map(|kept| name(partition, kept))
            .collect();
        let listed = store
            .list()
            .await
            .map_err(|error| fail(error.to_string()))?;
        let listed: Vec<_> = listed
            .try_collect()
            .await
            .map_err(|error| fail(error.to_string()))?;
        let of_partition = |object: &&ObjectInfo| object.name.starts_with(&all);
        let stored: Vec<_> = listed.iter().filter(of_partition).collect();
        let positions = stored.iter().map(|object| StoredCheckpoint {
            name: object.name.clone(),
            out_seq: out_seq_of(&object.name),
        });
        let positions: Vec<_> = positions.collect();
        let obsolete_checkpoints: BTreeSet<&str> =
            obsolete_checkpoints(&positions, |name| kept.contains(name)).collect();
        let mut deleted = 0;
        for object in stored {
            if obsolete_checkpoints.contains(object.name.as_str()) {
                let gone = chunks::remove(&self.bus.connections().consume_js, object).await;
                gone.map_err(|reason| error(&object.name, "deleted", reason))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// The checkpoints that the output log of a partition announced last; empty when it announced none.
    pub async fn announced(&self, partition: Partition) -> Result<Checkpoints, LeaderReadError> {
        let stream = self.bus.names().output_stream(partition);
        let last = self.bus.last_message(&stream).await?;
        let last = last.and_then(|message| decode_output(&message).ok());
        let frame = match last {
            Some(frame) if frame.checkpoints.is_none() => match frame.announced_at {
                Some(seq) => self.frame_at(partition, seq).await?,
                None => None,
            },
            last => last,
        };
        Ok(frame
            .and_then(|frame| frame.checkpoints)
            .unwrap_or_default())
    }

    /// True when a partition without rows is being restored from a checkpoint; readers of rows wait for it.
    pub async fn is_restoring(&self, partition: Partition) -> Result<bool, LeaderReadError> {
        let stream = self.bus.names().output_stream(partition);
        let is_trimmed = self.bus.stream_identity(&stream).await?.first_seq > 1;
        Ok(is_trimmed && !self.announced(partition).await?.is_empty())
    }

    /// The output frame at a sequence; `None` when the log does not hold it or it cannot be decoded.
    pub async fn frame_at(
        &self,
        partition: Partition,
        seq: u64,
    ) -> Result<Option<OutputFrame>, LeaderReadError> {
        let stream = self.bus.names().output_stream(partition);
        let message = self.bus.message_at(&stream, seq).await?;
        Ok(message.and_then(|message| decode_output(&message).ok()))
    }

    async fn info(&self, name: &str, bytes: u64) -> Result<Option<ObjectInfo>, String> {
        let context = &self.bus.connections().consume_js;
        let place = (self.bus.names().checkpoint_bucket(), name);
        let info = chunks::find(context, place).await?;
        Ok(info.filter(|info| !info.deleted && info.size as u64 == bytes))
    }

    async fn store(&self) -> Result<ObjectStore, String> {
        let bucket = self.bus.names().checkpoint_bucket();
        let context = &self.bus.connections().consume_js;
        let store = context.get_object_store(bucket).await;
        store.map_err(|error| error.to_string())
    }
}

/// The name contains the position: a fenced owner may delete late, and must not delete checkpoints of newer
/// owners.
fn name(partition: Partition, named: &CheckpointRef) -> String {
    format!("{partition}.{:020}.{}", named.out_seq, named.hash)
}

/// The position in a name; 0 when there is none, which is older than all.
fn out_seq_of(name: &str) -> u64 {
    let position = name.split('.').nth(1);
    position.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn error(name: &str, verb: &'static str, reason: String) -> CheckpointStoreError {
    CheckpointStoreError {
        name: name.to_owned(),
        verb,
        reason,
    }
}
