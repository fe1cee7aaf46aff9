//! Values as columns of the archive hold them.

use crate::error::ArchiveError;

/// A sequence as a column holds it.
pub(super) fn column_seq(field: &'static str, value: u64) -> Result<i64, ArchiveError> {
    i64::try_from(value).map_err(|_| ArchiveError::OutOfRange { field, value })
}
