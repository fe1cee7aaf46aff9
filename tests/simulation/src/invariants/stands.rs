//! What is published stands: every outcome in the output log is what the reference makes of the
//! entry, so no replay can contradict it.

use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;

use super::fact::Found;
use crate::reference::Reference;

/// Looks at a frame.
///
/// # Errors
/// Names the entry.
pub fn check(partition: Partition, frame: &OutputFrame, reference: &Reference) -> Found {
    for outcome in &frame.outcomes {
        let position = outcome.position;
        match reference.outcome(partition, position) {
            Some(expected) if expected == outcome => {}
            Some(expected) => {
                return Err(format!(
                    "the outcome of {partition} {position:?} is {outcome:?}, a replay gives \
                     {expected:?}"
                ));
            }
            None => {
                return Err(format!(
                    "an outcome of {partition} {position:?}, where no entry is"
                ));
            }
        }
    }
    Ok(())
}
