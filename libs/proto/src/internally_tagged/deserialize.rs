//! Deserialization.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, VariantAccess,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;

/// Presents an object with a tag as an enum.
pub(crate) struct TaggedDeserializer<'a, D> {
    tag: &'static str,
    sibling: SiblingNumber<'a>,
    inner: D,
}

impl<D> TaggedDeserializer<'_, D> {
    pub(crate) fn new(tag: &'static str, inner: D) -> Self {
        let sibling = SiblingNumber(None);
        Self {
            tag,
            sibling,
            inner,
        }
    }
}

impl<'a, D> TaggedDeserializer<'a, D> {
    /// Also reads a number among the fields that belongs to no variant.
    pub(crate) fn with_number(mut self, name: &'static str, number: &'a mut Option<u64>) -> Self {
        self.sibling = SiblingNumber(Some((name, number)));
        self
    }
}

/// A number among the fields of the object, outside of the variants.
struct SiblingNumber<'a>(Option<(&'static str, &'a mut Option<u64>)>);

impl SiblingNumber<'_> {
    /// Reads the value of the key when it is the number; true when it was.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match &mut self.0 {
            Some((name, number)) if *name == key => {
                if number.is_some() {
                    return Err(A::Error::duplicate_field(name));
                }
                **number = Some(map.next_value()?);
                Ok(true)
            }
            _other => Ok(false),
        }
    }
}

/// A text that is copied only when it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for TaggedDeserializer<'_, D> {
    type Error = D::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let Self {
            tag,
            sibling,
            inner,
        } = self;
        inner.deserialize_map(Object {
            tag,
            sibling,
            visitor,
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Object<'a, V> {
    tag: &'static str,
    sibling: SiblingNumber<'a>,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the field {:?}", self.tag)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<V::Value, A::Error> {
        let mut before = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            if key == self.tag {
                let Text(variant) = map.next_value()?;
                return self.visitor.visit_enum(Variant {
                    variant,
                    fields: Fields {
                        tag: self.tag,
                        before: before.into_iter(),
                        value: None,
                        sibling: self.sibling,
                        map,
                    },
                });
            }
            if !self.sibling.take(&key, &mut map)? {
                before.push((key, map.next_value()?));
            }
        }
        Err(A::Error::missing_field(self.tag))
    }
}

/// The tagged variant with the other fields.
struct Variant<'a, 'de, A> {
    variant: Cow<'de, str>,
    fields: Fields<'a, 'de, A>,
}

impl<'a, 'de, A: MapAccess<'de>> EnumAccess<'de> for Variant<'a, 'de, A> {
    type Error = A::Error;
    type Variant = Fields<'a, 'de, A>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let variant = seed.deserialize(self.variant.into_deserializer())?;
        Ok((variant, self.fields))
    }
}

/// The fields other than the tag.
struct Fields<'a, 'de, A> {
    tag: &'static str,
    before: std::vec::IntoIter<(Cow<'de, str>, Value)>,
    /// Buffered value of the last returned key, when the field came before the tag.
    value: Option<Value>,
    sibling: SiblingNumber<'a>,
    map: A,
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Fields<'_, 'de, A> {
    type Error = A::Error;

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        visitor.visit_map(self)
    }

    fn unit_variant(self) -> Result<(), A::Error> {
        Err(no_fields())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _seed: S) -> Result<S::Value, A::Error> {
        Err(no_fields())
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        _visitor: V,
    ) -> Result<V::Value, A::Error> {
        Err(no_fields())
    }
}

fn no_fields<E: Error>() -> E {
    E::custom("only variants with named fields can be read with a tag")
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        if let Some((key, value)) = self.before.next() {
            self.value = Some(value);
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        while let Some(Text(key)) = self.map.next_key()? {
            // Two readers must never read two events from the same text.
            if key == self.tag {
                return Err(A::Error::duplicate_field(self.tag));
            }
            if !self.sibling.take(&key, &mut self.map)? {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value).map_err(A::Error::custom),
            None => self.map.next_value_seed(seed),
        }
    }
}
