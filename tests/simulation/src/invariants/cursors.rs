//! Cursors never go back: a turn moves a cursor forward in both logs, in epochs and in fold time.

use nixfleet_proto::snapshot::Cursor;

use super::folded_entry::CheckResult;

/// Checks a cursor that replaces another.
///
/// # Errors
/// Names the part that went back.
pub fn check(before: Option<&Cursor>, after: &Cursor) -> CheckResult {
    let Some(before) = before else {
        return Ok(());
    };
    let rising = [
        ("output sequence", after.out_seq > before.out_seq),
        (
            "input position",
            after.input.map(|mark| (mark.seq, mark.index))
                >= before.input.map(|mark| (mark.seq, mark.index)),
        ),
        ("epoch", after.epoch >= before.epoch),
        ("leader epoch", after.leader_epoch >= before.leader_epoch),
        ("fold time", after.clock >= before.clock),
    ];
    match rising.iter().find(|(_, rises)| !rises) {
        Some((part, _)) => Err(format!("the {part} went back: {before:?}, then {after:?}")),
        None => Ok(()),
    }
}
