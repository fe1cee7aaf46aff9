//! Deserializes texts from a borrowed `str`: half of the fields of an entry are names, and serde's own
//! implementations copy them first.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserializer, Error, Visitor};

pub(crate) fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let make = |text: &str| Ok::<Arc<str>, fmt::Error>(text.into());
    deserializer.deserialize_str(Text::new(make))
}

pub(crate) fn parse<'de, D, T, E>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: Display,
{
    deserializer.deserialize_str(Text::new(parse))
}

struct Text<T, F>(F, PhantomData<T>);

impl<T, F> Text<T, F> {
    fn new(make: F) -> Self {
        Self(make, PhantomData)
    }
}

impl<T, E: Display, F: Fn(&str) -> Result<T, E>> Visitor<'_> for Text<T, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<R: Error>(self, text: &str) -> Result<T, R> {
        (self.0)(text).map_err(R::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, from_value, json};

    use crate::{ChannelRef, Hostname, RolloutId};

    #[test]
    fn texts_are_read_from_slices_values_and_with_escapes() {
        let text = ChannelRef::from("a\"b");
        assert_eq!(from_str::<ChannelRef>(r#""a\"b""#).unwrap(), text);
        assert_eq!(from_value::<ChannelRef>(json!("a\"b")).unwrap(), text);
        let host = Hostname::from("web-1");
        assert_eq!(from_str::<Hostname>(r#""\u0077eb-1""#).unwrap(), host);
        assert_eq!(from_value::<Hostname>(json!("web-1")).unwrap(), host);
        let id: RolloutId = "stable@4f".parse().unwrap();
        assert_eq!(from_str::<RolloutId>(r#""stable@4f""#).unwrap(), id);
        assert_eq!(from_value::<RolloutId>(json!("stable@4f")).unwrap(), id);
    }

    #[test]
    fn other_types_and_invalid_ids_are_rejected() {
        assert!(from_str::<Hostname>("7").is_err());
        assert!(from_str::<Hostname>("null").is_err());
        let error = from_str::<RolloutId>(r#""stable""#).unwrap_err();
        assert!(error.to_string().contains("it has no '@'"), "{error}");
    }
}
