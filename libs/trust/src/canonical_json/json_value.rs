//! A JSON value with all information for its canonical form.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::error::CanonicalizeError;
use super::tokens::{check, shortened};

/// A JSON value whose objects have no duplicate keys and whose numbers are doubles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JsonValue<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<JsonValue<'a>>),
    Object(Vec<(Cow<'a, str>, JsonValue<'a>)>),
}

impl<'a> JsonValue<'a> {
    /// Parses a text; rejects input without a canonical form.
    pub(crate) fn parse(text: &'a str) -> Result<Self, CanonicalizeError> {
        check(text)?;
        let duplicate = RefCell::new(None);
        let mut parser = serde_json::Deserializer::from_str(text);
        let seed = ValueSeed {
            duplicate: &duplicate,
        };
        match seed.deserialize(&mut parser) {
            Ok(node) => Ok(node),
            Err(error) => Err(match duplicate.into_inner() {
                Some(key) => CanonicalizeError::DuplicateKey { key },
                // Grammar, depth and numbers are checked: only decoding an escape can fail.
                None => CanonicalizeError::LoneSurrogate {
                    line: error.line(),
                    column: error.column(),
                },
            }),
        }
    }

    pub(crate) fn canonical(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self)
            .expect("keys are unique texts and numbers are finite, writing to memory cannot fail")
    }
}

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            JsonValue::Null => serializer.serialize_unit(),
            JsonValue::Bool(value) => serializer.serialize_bool(*value),
            JsonValue::Number(value) => serializer.serialize_f64(*value),
            JsonValue::Text(text) => serializer.serialize_str(text),
            JsonValue::List(items) => serializer.collect_seq(items),
            JsonValue::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// Deserializes one value; stores the first duplicate key in the cell, because a parser error has only text.
#[derive(Clone, Copy)]
struct ValueSeed<'c> {
    duplicate: &'c RefCell<Option<String>>,
}

impl<'a> DeserializeSeed<'a> for ValueSeed<'_> {
    type Value = JsonValue<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<JsonValue<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for ValueSeed<'_> {
    type Value = JsonValue<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonValue<'a>, E> {
        Ok(JsonValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut access: A) -> Result<JsonValue<'a>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(JsonValue::List(items))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut access: A) -> Result<JsonValue<'a>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key_seed(KeySeed)? {
            entries.push((key, access.next_value_seed(self)?));
        }
        if let Some(key) = first_duplicate(&entries) {
            *self.duplicate.borrow_mut() = Some(shortened(key));
            return Err(serde::de::Error::custom("duplicate key"));
        }
        Ok(JsonValue::Object(entries))
    }
}

fn first_duplicate<'k>(entries: &'k [(Cow<'_, str>, JsonValue<'_>)]) -> Option<&'k str> {
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

/// Deserializes a key, borrowed unless it has escapes.
struct KeySeed;

impl<'a> DeserializeSeed<'a> for KeySeed {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for KeySeed {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
