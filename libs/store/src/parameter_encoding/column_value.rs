//! Conversion of values to columns.

use nixfleet_proto::minutes::Minutes;
use serde::Serialize;

use crate::error::{ApplyError, OutOfRange};
use crate::parameter_encoding::nul_escape::encode_json;

pub(crate) use nixfleet_proto::column_time;

/// A value for a `jsonb` column.
pub(crate) fn record_json<T: Serialize>(record: &T) -> Result<String, ApplyError> {
    serde_json::to_string(record)
        .map(|json| encode_json(json).into_owned())
        .map_err(ApplyError::Encode)
}

pub(crate) fn column_seq(field: &'static str, value: u64) -> Result<i64, OutOfRange> {
    i64::try_from(value).map_err(|_| OutOfRange { field, value })
}

pub(crate) fn column_minutes(minutes: Minutes) -> f64 {
    minutes.seconds() as f64 / 60.0
}
