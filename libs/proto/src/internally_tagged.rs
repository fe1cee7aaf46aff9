//! Enums whose JSON is an object with the variant's name in one of its fields, read without a copy.
//!
//! `#[serde(tag = "…")]` writes the same JSON, but collects all fields in memory before it reads them,
//! wherever the tag stands. Ours comes first, so the fields can be read as they come; what stands
//! before the tag, from other writers, is kept until it is seen.
//!
//! An enum of struct variants derives with `#[serde(remote = "Self")]` and calls [`tagged_enum!`]. The
//! derived functions, which write and read the enum without its tag, then hide those of the traits:
//! whoever calls by name has to write `<Name as Deserialize>::deserialize`.

pub(crate) mod deserialize;
pub(crate) mod serialize;

/// Implements the traits of serde for an enum with its tag.
macro_rules! tagged_enum {
    ($name:ty, $tag:literal) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$name>::serialize(
                    self,
                    $crate::internally_tagged::serialize::TaggedSerializer::new($tag, serializer),
                )
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                <$name>::deserialize(
                    $crate::internally_tagged::deserialize::TaggedDeserializer::new(
                        $tag,
                        deserializer,
                    ),
                )
            }
        }
    };
}
pub(crate) use tagged_enum;

#[cfg(test)]
mod tests;
