//! Keys and values of the lease bucket.

use std::collections::BTreeSet;

use nixfleet_proto::Timestamp;
use nixfleet_proto::subject::escape;
use serde::{Deserialize, Serialize};

/// A key of one service in the bucket. Names are escaped subject tokens and never unescaped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// A live instance.
    Member(String),
    /// A lease that an instance may hold.
    Lease(String),
}

impl RecordKey {
    /// The key of an instance.
    pub fn member(instance: &str) -> Self {
        Self::Member(escape(instance))
    }

    /// The key of a lease.
    pub fn lease(key: &str) -> Self {
        Self::Lease(escape(key))
    }

    /// Path of the key in the bucket.
    pub fn path(&self, service: &str) -> String {
        let service = escape(service);
        match self {
            Self::Member(token) => format!("member.{service}.{token}"),
            Self::Lease(token) => format!("lease.{service}.{token}"),
        }
    }

    /// Splits a path into service token and key; `None` for any other path.
    pub fn parse(path: &str) -> Option<(&str, Self)> {
        let mut parts = path.split('.');
        let (kind, service, token) = (parts.next()?, parts.next()?, parts.next()?);
        let is_complete = parts.next().is_none() && !service.is_empty() && !token.is_empty();
        let key = match kind {
            "member" if is_complete => Self::Member(token.to_owned()),
            "lease" if is_complete => Self::Lease(token.to_owned()),
            _ => return None,
        };
        Some((service, key))
    }
}

/// Writer of a record: the instance name and the process, which tells two processes with one name apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceId {
    /// Instance name, unique among the members of a service.
    pub instance: String,
    /// Unique id of one start of a process.
    pub process: String,
}

/// Value of a member key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRecord {
    /// The instance.
    #[serde(flatten)]
    pub writer: InstanceId,
    /// Count of the write.
    pub renewal: u64,
    /// Release of the service.
    pub version: String,
    /// Start of the process.
    pub since: Timestamp,
    /// Time to live of the record.
    pub ttl_seconds: u64,
    /// Keys that this member declines, because work under them failed here or no worker waits.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub declines: BTreeSet<String>,
}

/// Value of a lease key. The count identifies the value to a writer whose acknowledgement was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// The holder.
    #[serde(flatten)]
    pub writer: InstanceId,
    /// Count of the write.
    pub renewal: u64,
    /// Time to live of the record; absent in those of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Epoch of the work under the lease, when it is known; for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Parts of the work that are held, as the service names them; for operators.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub held: BTreeSet<String>,
}

/// A value of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Value of a member key.
    Member(MemberRecord),
    /// Value of a lease key.
    Lease(LeaseRecord),
}

impl Record {
    /// Who writes it.
    pub fn writer(&self) -> &InstanceId {
        match self {
            Self::Member(record) => &record.writer,
            Self::Lease(record) => &record.writer,
        }
    }

    /// Count of the write.
    pub fn renewal(&self) -> u64 {
        match self {
            Self::Member(record) => record.renewal,
            Self::Lease(record) => record.renewal,
        }
    }

    /// Serialises the value.
    ///
    /// # Errors
    /// Never in practice: the records have strings and numbers only.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Member(record) => serde_json::to_vec(record),
            Self::Lease(record) => serde_json::to_vec(record),
        }
    }

    /// Parses a value; `None` when another release wrote another format.
    pub fn read(key: &RecordKey, bytes: &[u8]) -> Option<Self> {
        match key {
            RecordKey::Member(_) => serde_json::from_slice(bytes).ok().map(Self::Member),
            RecordKey::Lease(_) => serde_json::from_slice(bytes).ok().map(Self::Lease),
        }
    }
}

/// Content of a key at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedContent {
    /// Revision of the value or of its deletion; 0 when the key never existed.
    pub revision: u64,
    /// The content.
    pub content: Content,
}

/// Content of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Deleted, expired, or never there.
    Absent,
    /// A readable value.
    Record(Record),
    /// A value in the format of another release: the writer exists but is unknown.
    Unreadable,
}

/// Result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    /// Stored with this revision.
    Stored(u64),
    /// The key has another revision; this attempt stored nothing.
    Conflict,
    /// The result is unknown.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_through_their_path() {
        for key in [RecordKey::member("web-1.x"), RecordKey::lease("07")] {
            let path = key.path("reducer");
            assert_eq!(RecordKey::parse(&path), Some(("reducer", key)));
        }
        for path in [
            "member.reducer",
            "lease.reducer.00.x",
            "lease..00",
            "other.a.b",
            "",
        ] {
            assert_eq!(RecordKey::parse(path), None, "{path}");
        }
    }

    #[test]
    fn records_of_earlier_releases_are_read() {
        let old = br#"{"instance":"a","process":"p","renewal":7}"#;
        let read = Record::read(&RecordKey::lease("00"), old).unwrap();
        assert_eq!((read.writer().instance.as_str(), read.renewal()), ("a", 7));
        assert_eq!(Record::read(&RecordKey::member("a"), old), None);
    }
}
