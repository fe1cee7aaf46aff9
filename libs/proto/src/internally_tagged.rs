//! Internally tagged enums, deserialized without a copy.
//!
//! `#[serde(tag = "…")]` has the same JSON, but buffers all fields before it reads them. The writer here
//! puts the tag first, so that the reader streams the fields behind it; it buffers only fields that
//! another writer put before the tag.
//!
//! An enum of struct variants derives with `#[serde(remote = "Self")]` and calls [`tagged_enum!`]. The
//! derived inherent functions handle the enum without its tag and hide the trait functions: call
//! `<Name as Deserialize>::deserialize`.

pub(crate) mod deserialize;
pub(crate) mod serialize;

/// Implements the serde traits for an internally tagged enum.
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
