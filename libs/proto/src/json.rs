//! Serde adapters shared by the wire types.

use serde::{Deserialize, Deserializer};

/// Reads `null` like an absent key: as the default.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// True for `false`: keeps a flag that is not set out of the JSON.
pub fn is_false(flag: &bool) -> bool {
    !*flag
}
