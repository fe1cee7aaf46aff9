//! Lease keys of the services that work by partition.

use nixfleet_proto::subject::Partition;

/// The lease keys of services that work by partition.
pub fn all_keys(partitions: u16) -> Vec<String> {
    Partition::all(partitions).map(|p| p.to_string()).collect()
}

/// The partition that a lease key names.
///
/// # Panics
/// When the key is not the number of a partition.
pub fn partition_of(key: &str) -> Partition {
    Partition::new(key.parse().expect("keys are numbers of partitions"))
}
