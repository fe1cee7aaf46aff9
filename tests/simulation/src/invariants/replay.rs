//! Every published outcome equals that of the reference fold, so that every replay gives it.

use nixfleet_proto::OutputFrame;
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::subject::Partition;

use super::folded_entry::CheckResult;
use crate::reference_fold::ReferenceFold;

/// Checks a frame.
///
/// # Errors
/// Names the entry.
pub fn check(partition: Partition, frame: &OutputFrame, reference: &ReferenceFold) -> CheckResult {
    let positions = frame.outcomes.iter().map(|outcome| outcome.position);
    let expected = positions.map(|position| {
        let expected = reference.outcome(partition, position).cloned();
        expected.ok_or_else(|| format!("an outcome of {partition} {position:?} without an entry"))
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
