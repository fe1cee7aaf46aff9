//! Reading JSON, and serde adapters shared by the wire types.

use serde::{Deserialize, Deserializer};

/// Reads a document. What is one text is looked at as such only once, not string by string: half of a
/// document are names and times.
///
/// # Errors
/// As `serde_json::from_slice`.
pub fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Reads `null` like an absent key: as the default.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// True for `false`: keeps a flag that is not set out of the JSON.
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_judged_as_bytes_are() {
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
