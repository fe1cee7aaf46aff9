//! Newtypes for names and hashes, so that the compiler tells a closure from a hostname.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::str_deserialize;

/// Defines a cheaply clonable text newtype ordered by bytes, without a constructor.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// True when both share one allocation.
            pub fn is_shared_with(&self, other: &Self) -> bool {
                std::sync::Arc::ptr_eq(&self.0, &other.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Defines such a newtype of any text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        text!($(#[$doc])* $name);

        impl $name {
            /// Wraps a text without validation.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                str_deserialize::shared(deserializer).map(Self)
            }
        }
    };
}

mod hostname;

pub use hostname::{HOSTNAME_BYTES_MAX, Hostname, HostnameError};

/// The beginning of a text, for messages about it.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

text_id!(
    /// Name of a channel; its FNV-1a hash decides the partition.
    ChannelName
);
text_id!(
    /// The commit a channel points at.
    ChannelRef
);
text_id!(
    /// Base name of a system's store path, compared byte for byte.
    ClosureHash
);
text_id!(
    /// Name of a health probe on a host.
    ProbeName
);
text_id!(
    /// Lower-case hexadecimal SHA-256 of an artifact's canonical bytes.
    ManifestHash
);

/// Identity of a rollout: `{channel}@{ref}`.
///
/// Source: docs/semantics.md, names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutId(Arc<str>);

/// Serializes without a copy: every record, effect and event names its rollout.
impl Serialize for RolloutId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RolloutId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        str_deserialize::parse(deserializer, str::parse)
    }
}

/// The text is not a rollout id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a rollout id: {fault}")]
pub struct RolloutIdError {
    text: String,
    fault: &'static str,
}

impl RolloutId {
    /// Joins a channel and its ref.
    pub fn new(channel: &ChannelName, target_ref: &ChannelRef) -> Self {
        Self(format!("{channel}@{target_ref}").into())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `@`.
    pub fn channel(&self) -> ChannelName {
        ChannelName::from(self.parts().0)
    }

    /// The part after the first `@`.
    pub fn target_ref(&self) -> ChannelRef {
        ChannelRef::from(self.parts().1)
    }

    /// Parses an id sent by a client: channel of `a-z 0-9 _ -`, ref of lower-case hexadecimal
    /// digits, exactly one `@`.
    ///
    /// # Errors
    /// Names the invalid part.
    ///
    /// Source: docs/wire-protocol.md, rollout ids.
    pub fn parse_strict(text: &str) -> Result<Self, RolloutIdError> {
        let fail = |fault| {
            Err(RolloutIdError {
                text: shortened(text),
                fault,
            })
        };
        let Some((channel, target_ref)) = text.split_once('@') else {
            return fail("it has no '@'");
        };
        if !is_channel_name(channel) {
            return fail("the channel must be one or more of a-z, 0-9, '_' and '-'");
        }
        if !is_channel_ref(target_ref) {
            return fail("the ref must be one or more lower-case hexadecimal digits");
        }
        Ok(Self(text.into()))
    }

    /// The parts before and after the first `@`.
    pub fn parts(&self) -> (&str, &str) {
        self.0
            .split_once('@')
            .expect("every constructor checks for the '@'")
    }
}

/// True for a name of one or more of `a-z 0-9 _ -`.
pub fn is_channel_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// True for one or more lower-case hexadecimal digits.
pub fn is_channel_ref(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for RolloutId {
    type Err = RolloutIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('@') {
            Some((channel, _)) if !channel.is_empty() => Ok(Self(text.into())),
            Some(_) => Err(RolloutIdError {
                text: text.to_owned(),
                fault: "the channel is empty",
            }),
            None => Err(RolloutIdError {
                text: text.to_owned(),
                fault: "it has no '@'",
            }),
        }
    }
}

impl TryFrom<String> for RolloutId {
    type Error = RolloutIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RolloutId> for String {
    fn from(id: RolloutId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for RolloutId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_id_splits_at_the_first_at_sign() {
        let id: RolloutId = "stable@4f1c".parse().unwrap();
        assert_eq!(id.channel(), ChannelName::from("stable"));
        assert_eq!(id.target_ref(), ChannelRef::from("4f1c"));
    }

    #[test]
    fn strict_parsing_rejects_ids_that_routes_must_not_see() {
        for text in [
            "stable",
            "@4f",
            "stable@",
            "Stable@4f",
            "stable@4F",
            "a.b@4f",
            "a@b@4f",
            "a/../b@4f",
        ] {
            assert!(RolloutId::parse_strict(text).is_err(), "{text}");
        }
        assert!(RolloutId::parse_strict("stable_2-x@04fa").is_ok());
    }
}
