//! Whether an owner that cannot read on retries or stops.

use nixfleet_reducer::OwnershipEnd;

use crate::services::reader::ReadFault;

/// A reader that cannot go on, as the shell judges it.
pub fn read_fault(fault: ReadFault) -> OwnershipEnd {
    let error = std::io::Error::other(format!("{fault:?}"));
    match fault {
        ReadFault::Missing | ReadFault::Replaced => OwnershipEnd::failed(error),
        ReadFault::Trimmed(_) | ReadFault::Gap | ReadFault::Regressed | ReadFault::Rewritten => {
            OwnershipEnd::halted(error)
        }
    }
}
