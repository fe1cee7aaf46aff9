//! Fill of the logs and presence of checkpoints of a partition.

use nixfleet_bus::{Bus, LogUsage};
use nixfleet_proto::Checkpoints;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{LogBytes, OwnershipEnd};

/// Fill of both logs at a takeover.
pub struct PartitionLogUsage {
    pub input: LogUsage,
    pub output: LogUsage,
}

impl PartitionLogUsage {
    /// Reads both usage.
    ///
    /// # Errors
    /// [`OwnershipEnd::Failed`] when the bus does not answer.
    pub async fn read(bus: &Bus, partition: Partition) -> Result<Self, OwnershipEnd> {
        let (input, output) = (
            bus.names().input_stream(partition),
            bus.names().output_stream(partition),
        );
        Ok(Self {
            input: bus.log_usage(&input).await.map_err(OwnershipEnd::failed)?,
            output: bus.log_usage(&output).await.map_err(OwnershipEnd::failed)?,
        })
    }

    pub fn bytes(&self) -> LogBytes {
        LogBytes {
            input: self.input.bytes,
            output: self.output.bytes,
        }
    }
}

/// True unless the object store lacks one of these checkpoints, also without an answer.
pub async fn are_checkpoints_stored(bus: &Bus, partition: Partition, known: &Checkpoints) -> bool {
    let store = bus.checkpoints();
    for named in known.newest_first() {
        match store.holds(partition, named).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%partition, hash = named.hash,
                    "an announced checkpoint is not in the object store; the next is written at once");
                return false;
            }
            Err(error) => {
                tracing::warn!(%partition, %error, "cannot check whether a checkpoint is stored")
            }
        }
    }
    true
}
