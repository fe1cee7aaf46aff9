//! What is published stands: every outcome in the output log is what the reference makes of the
//! entry, so no replay can contradict it.

use nixfleet_proto::OutputFrame;
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::subject::Partition;

use super::folded_entry::CheckResult;
use crate::reference_fold::ReferenceFold;

/// Looks at a frame.
///
/// # Errors
/// Names the entry.
pub fn check(partition: Partition, frame: &OutputFrame, reference: &ReferenceFold) -> CheckResult {
    let positions = frame.outcomes.iter().map(|outcome| outcome.position);
    let expected = positions.map(|position| {
        let expected = reference.outcome(partition, position).cloned();
        expected.ok_or_else(|| format!("an outcome of {partition} {position:?}, where no entry is"))
    });
    let mut expected = expected.collect::<Result<Vec<_>, _>>()?;
    drop_repeated_records(&mut expected);
    match frame.outcomes.iter().zip(&expected).find(|(a, b)| a != b) {
        None => Ok(()),
        Some((outcome, expected)) => Err(format!(
            "the outcome of {partition} {:?} is {outcome:?}, a replay gives {expected:?}",
            outcome.position
        )),
    }
}
