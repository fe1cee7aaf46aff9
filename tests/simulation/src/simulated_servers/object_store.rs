//! The model of the object store of checkpoints.

use std::collections::BTreeMap;

use bytes::Bytes;
use nixfleet_bus::{StoredCheckpoint, obsolete_checkpoints};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints};

/// Stored checkpoints.
#[derive(Debug, Default)]
pub struct ObjectStore {
    /// Last output sequence covered, and bytes, by name.
    objects: BTreeMap<(Partition, String), (u64, Bytes)>,
}

impl ObjectStore {
    /// Stores a checkpoint under its name, unless it is stored already.
    pub fn put(&mut self, partition: Partition, named: &CheckpointRef, bytes: Bytes) {
        if !self.holds(partition, named) {
            let key = (partition, named.hash.clone());
            self.objects.insert(key, (named.out_seq, bytes));
        }
    }

    /// The bytes of a checkpoint; absent when there is no object of its name and size.
    pub fn get(&self, partition: Partition, named: &CheckpointRef) -> Option<&Bytes> {
        let (_, bytes) = self.objects.get(&(partition, named.hash.clone()))?;
        (bytes.len() as u64 == named.bytes).then_some(bytes)
    }

    /// True when the object is there with its size.
    pub fn holds(&self, partition: Partition, named: &CheckpointRef) -> bool {
        self.get(partition, named).is_some()
    }

    /// Deletes the obsolete checkpoints of a partition, as the bus does.
    pub fn delete_obsolete(&mut self, partition: Partition, kept: &Checkpoints) {
        let of_partition = self.objects.iter().filter(|((of, _), _)| *of == partition);
        let stored: Vec<_> = of_partition
            .map(|((_, hash), (out_seq, _))| StoredCheckpoint {
                name: hash.clone(),
                out_seq: *out_seq,
            })
            .collect();
        for hash in obsolete_checkpoints(&stored, |hash| {
            kept.newest_first().any(|kept| kept.hash == hash)
        }) {
            self.objects.remove(&(partition, hash.to_owned()));
        }
    }

    /// Deletes an object, or replaces its bytes.
    pub fn damage(&mut self, partition: Partition, hash: &str, bytes: Option<Bytes>) {
        let key = (partition, hash.to_owned());
        match (bytes, self.objects.get_mut(&key)) {
            (Some(bytes), Some((_, stored))) => *stored = bytes,
            (Some(_) | None, _) => {
                self.objects.remove(&key);
            }
        }
    }
}
