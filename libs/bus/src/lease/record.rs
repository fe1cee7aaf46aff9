//! What is written under the keys of the lease bucket.

use std::collections::BTreeSet;

use nixfleet_proto::Timestamp;
use nixfleet_proto::subject::escape;
use serde::{Deserialize, Serialize};

/// A key of the bucket, of one service. Names are held as subject tokens: escaped once, never back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// An instance that lives.
    Member(String),
    /// A key somebody may hold.
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

    /// The key inside the bucket.
    pub fn path(&self, service: &str) -> String {
        let service = escape(service);
        match self {
            Self::Member(token) => format!("member.{service}.{token}"),
            Self::Lease(token) => format!("lease.{service}.{token}"),
        }
    }

    /// Service (as a token) and key of a key inside the bucket; nothing for what is none of these.
    pub fn parse(path: &str) -> Option<(&str, Self)> {
        let mut parts = path.split('.');
        let (kind, service, token) = (parts.next()?, parts.next()?, parts.next()?);
        let is_whole = parts.next().is_none() && !service.is_empty() && !token.is_empty();
        let key = match kind {
            "member" if is_whole => Self::Member(token.to_owned()),
            "lease" if is_whole => Self::Lease(token.to_owned()),
            _ => return None,
        };
        Some((service, key))
    }
}

/// Who writes: a name, and what tells two processes with one name apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceId {
    /// The instance, unique among the members of a service.
    pub instance: String,
    /// Unique to one start of one process.
    pub process: String,
}

/// Value of a member key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRecord {
    /// Who lives.
    #[serde(flatten)]
    pub writer: InstanceId,
    /// Tells one write of a process from the next.
    pub renewal: u64,
    /// Release of the service.
    pub version: String,
    /// Start of the process.
    pub since: Timestamp,
    /// Time to live of the record.
    pub ttl_seconds: u64,
    /// Keys this member does not want at present, because work under them failed here or nobody
    /// works on them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub declines: BTreeSet<String>,
}

/// Value of a lease key. The counter lets a writer whose acknowledgement was lost recognise its own
/// value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// Who holds it.
    #[serde(flatten)]
    pub writer: InstanceId,
    /// Tells one write of a process from the next.
    pub renewal: u64,
    /// Time to live of the record; absent in those of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Epoch of the work under it, once that is known; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Under a member key.
    Member(MemberRecord),
    /// Under a lease key.
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

    /// The count of the write.
    pub fn renewal(&self) -> u64 {
        match self {
            Self::Member(record) => record.renewal,
            Self::Lease(record) => record.renewal,
        }
    }

    /// The bytes of the value.
    ///
    /// # Errors
    /// Never in practice: the records hold strings and numbers.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Member(record) => serde_json::to_vec(record),
            Self::Lease(record) => serde_json::to_vec(record),
        }
    }

    /// Reads a value; nothing when another release wrote something else.
    pub fn read(key: &RecordKey, bytes: &[u8]) -> Option<Self> {
        match key {
            RecordKey::Member(_) => serde_json::from_slice(bytes).ok().map(Self::Member),
            RecordKey::Lease(_) => serde_json::from_slice(bytes).ok().map(Self::Lease),
        }
    }
}

/// What the bucket says about a key at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedContent {
    /// Revision of the value or of the mark that it is gone; 0 when there never was one.
    pub revision: u64,
    /// What is there.
    pub content: Content,
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Deleted, expired, or never there.
    Absent,
    /// A readable value.
    Record(Record),
    /// A value of some other release: somebody is there, nobody knows who.
    Unreadable,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    /// It is stored with this revision.
    Stored(u64),
    /// Another revision is there; nothing was stored by this attempt.
    Conflict,
    /// Nobody knows.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
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
