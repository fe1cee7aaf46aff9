//! JSON deserialization, and serde adapters shared by the wire types.

use serde::{Deserialize, Deserializer};

/// Deserializes a document. Checks UTF-8 once for the whole document instead of once per string: half of
/// a document are names and times.
///
/// # Errors
/// As `serde_json::from_slice`.
pub fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Deserializes `null` as the default, like an absent key.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// True for `false`: omits a flag that is not set.
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_utf8_gives_the_errors_of_from_slice() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Named {
            name: String,
        }

        let name = |name: &str| Named { name: name.into() };
        assert_eq!(
            read::<Named>(r#"{"name":"ä"}"#.as_bytes()).unwrap(),
            name("ä")
        );
        for bytes in [
            &b"{\"name\":\"\xff\"}"[..],
            b"{\"name\":\"a\",\"else\":\"\xff\"}",
            b"\xff",
        ] {
            let told = serde_json::from_slice::<Named>(bytes).map_err(|error| error.to_string());
            let read = read::<Named>(bytes).map_err(|error| error.to_string());
            assert_eq!(read, told);
        }
    }
}
