//! What the logs and the object store hold of a partition.

use nixfleet_bus::{Bus, LogUsage};
use nixfleet_proto::Checkpoints;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{Ended, LogBytes};

/// What the logs held when their partition was taken over.
pub struct HeldLogs {
    /// The input log.
    pub input: LogUsage,
    /// The output log.
    pub output: LogUsage,
}

impl HeldLogs {
    /// Looks at both.
    ///
    /// # Errors
    /// [`Ended::Failed`] when the bus does not say.
    pub async fn look(bus: &Bus, partition: Partition) -> Result<Self, Ended> {
        let (input, output) = (
            bus.names().input_stream(partition),
            bus.names().output_stream(partition),
        );
        Ok(Self {
            input: bus.log_usage(&input).await.map_err(Ended::failed)?,
            output: bus.log_usage(&output).await.map_err(Ended::failed)?,
        })
    }

    /// Their bytes.
    pub fn bytes(&self) -> LogBytes {
        LogBytes {
            input: self.input.bytes,
            output: self.output.bytes,
        }
    }
}

/// True unless the object store lacks one of these checkpoints. What does not answer is no reason to
/// write another.
pub async fn are_stored(bus: &Bus, partition: Partition, known: &Checkpoints) -> bool {
    let store = bus.checkpoints();
    for named in known.newest_first() {
        match store.holds(partition, named).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%partition, hash = named.hash,
                    "an announced checkpoint is not in the object store; the next is written at once");
                return false;
            }
            Err(error) => tracing::warn!(%partition, %error, "a checkpoint is not looked for"),
        }
    }
    true
}
