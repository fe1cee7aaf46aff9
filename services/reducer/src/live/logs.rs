//! What the logs of a partition hold, and whether they can be trimmed.

use nixfleet_bus::{Bus, LogFill};
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{Ended, LogBytes, Owner};

/// What the logs held when their partition was taken over.
pub struct HeldLogs {
    /// The input log.
    pub input: LogFill,
    /// The output log.
    pub output: LogFill,
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
            input: bus.log_fill(&input).await.map_err(Ended::failed)?,
            output: bus.log_fill(&output).await.map_err(Ended::failed)?,
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

/// True when an announced checkpoint is not in the object store, or when none was announced and the log
/// does not reach back to its beginning: after the bus lost its data. Without it a lost database cannot be
/// restored from this log, and the log cannot be trimmed. What does not answer is no reason to stop.
pub async fn is_checkpoint_missing(
    bus: &Bus,
    partition: Partition,
    (output, owner): (&LogFill, &Owner),
) -> bool {
    if owner.checkpoints().is_empty() {
        return output.first_seq > 1;
    }
    let store = bus.checkpoints();
    for named in owner.checkpoints().newest_first() {
        match store.holds(partition, named).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%partition, hash = named.hash,
                    "an announced checkpoint is not in the object store; the next is written at once");
                return true;
            }
            Err(error) => tracing::warn!(%partition, %error, "a checkpoint is not looked for"),
        }
    }
    false
}
