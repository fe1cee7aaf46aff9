//! Values as columns hold them.

use serde::Serialize;

use crate::error::ApplyError;
use crate::text::encode_json;

/// A value as stored in a `jsonb` column.
pub(crate) fn record_json<T: Serialize>(record: &T) -> Result<String, ApplyError> {
    serde_json::to_string(record)
        .map(|json| encode_json(json).into_owned())
        .map_err(ApplyError::Encode)
}

/// A sequence as a column holds it.
pub(crate) fn column_seq(field: &'static str, value: u64) -> Result<i64, ApplyError> {
    i64::try_from(value).map_err(|_| ApplyError::OutOfRange { field, value })
}
