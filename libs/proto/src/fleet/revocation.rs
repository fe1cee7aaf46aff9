//! Entries of the list of revocations.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::Hostname;

/// Longest name of a person or pipeline in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 253;

/// True for a name that a certificate of a person or pipeline may have: printable ASCII, without spaces around it.
pub fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && name.trim() == name
}

/// Whose certificates are refused. One name of a host, a person and a pipeline is three clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevokedClient {
    /// A host.
    Host(Hostname),
    /// A person, in whatever role.
    Person(String),
    /// A pipeline.
    Pipeline(String),
}

/// One refused client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireRevocation", into = "WireRevocation")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct Revocation {
    pub client: RevokedClient,
    /// Certificates issued earlier are refused.
    pub not_before: Timestamp,
    pub reason: Option<String>,
    pub revoked_by: Option<String>,
}

/// An entry as it is written: one of the three names.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRevocation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<Hostname>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    not_before: Timestamp,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    revoked_by: Option<String>,
}

/// An entry that refuses nobody, or that two readers could understand differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum RevocationError {
    #[error("a revocation names exactly one of hostname, person and pipeline")]
    Client,
    #[error(
        "{0:?} is no name of a person or pipeline: it must be 1 to 253 printable ASCII characters"
    )]
    Name(String),
}

impl TryFrom<WireRevocation> for Revocation {
    type Error = RevocationError;

    fn try_from(wire: WireRevocation) -> Result<Self, RevocationError> {
        let client = match (wire.hostname, wire.person, wire.pipeline) {
            (Some(hostname), None, None) => RevokedClient::Host(hostname),
            (None, Some(name), None) => RevokedClient::Person(checked(name)?),
            (None, None, Some(name)) => RevokedClient::Pipeline(checked(name)?),
            _ => return Err(RevocationError::Client),
        };
        Ok(Self {
            client,
            not_before: wire.not_before,
            reason: wire.reason,
            revoked_by: wire.revoked_by,
        })
    }
}

fn checked(name: String) -> Result<String, RevocationError> {
    if is_client_name(&name) {
        Ok(name)
    } else {
        Err(RevocationError::Name(name.chars().take(80).collect()))
    }
}

impl From<Revocation> for WireRevocation {
    fn from(revocation: Revocation) -> Self {
        let (hostname, person, pipeline) = match revocation.client {
            RevokedClient::Host(hostname) => (Some(hostname), None, None),
            RevokedClient::Person(name) => (None, Some(name), None),
            RevokedClient::Pipeline(name) => (None, None, Some(name)),
        };
        Self {
            hostname,
            person,
            pipeline,
            not_before: revocation.not_before,
            reason: revocation.reason,
            revoked_by: revocation.revoked_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    fn entry(names: &Value) -> Value {
        let mut entry =
            json!({ "notBefore": "2026-01-01T00:00:00Z", "reason": "r", "revokedBy": null });
        entry
            .as_object_mut()
            .unwrap()
            .extend(names.as_object().unwrap().clone());
        entry
    }

    #[test]
    fn an_entry_names_a_host_a_person_or_a_pipeline() {
        let check = |names: &Value, expected: RevokedClient| {
            let read: Revocation = from_value(entry(names)).unwrap();
            assert_eq!(read.client, expected);
            assert_eq!(to_value(&read).unwrap(), entry(names));
        };
        check(&json!({ "hostname": "a" }), RevokedClient::Host("a".into()));
        check(
            &json!({ "person": "a" }),
            RevokedClient::Person("a".to_owned()),
        );
        check(
            &json!({ "pipeline": "a b" }),
            RevokedClient::Pipeline("a b".to_owned()),
        );
    }

    #[test]
    fn an_entry_that_could_mean_two_clients_or_none_is_refused() {
        for names in [
            json!({}),
            json!({ "operator": "a" }),
            json!({ "hostname": "a", "person": "a" }),
            json!({ "person": "a", "pipeline": "a" }),
            json!({ "hostname": "A" }),
            json!({ "person": "" }),
            json!({ "person": " ada" }),
            json!({ "pipeline": "x".repeat(254) }),
        ] {
            assert!(from_value::<Revocation>(entry(&names)).is_err(), "{names}");
        }
    }
}
