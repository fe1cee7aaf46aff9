//! Who a client is, from its certificate alone.

use std::sync::Arc;

use nixfleet_proto::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Organisational unit of operator certificates.
pub const OPERATOR_UNIT: &str = "nixfleet-operator";
/// Organisational unit of certificates that may push releases and nothing else.
pub const CI_UNIT: &str = "nixfleet-ci";

/// Longest name taken from a certificate, the limit of a DNS name.
const MAX_NAME_BYTES: usize = 253;

/// What a certificate allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// One host of the fleet: the agent endpoints, for itself.
    Agent,
    /// A person: everything people may read and command.
    Operator,
    /// A pipeline: pushing releases.
    Ci,
}

impl Role {
    /// The name in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Ci => "ci",
        }
    }
}

/// A client whose certificate was verified against the client authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// Hostname of an agent, name of anyone else.
    pub name: Arc<str>,
    /// The certificate's common name as it is.
    pub common_name: String,
    /// Start of the certificate's validity; revocations compare with it.
    pub not_before: Timestamp,
    /// End of the certificate's validity. Checked per request, because connections and resumed
    /// sessions outlive certificates.
    pub not_after: Timestamp,
}

/// Why a verified certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are no certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No common name, or more than one.
    #[error("the certificate must have exactly one common name, it has {0}")]
    CommonNames(usize),
    /// The name cannot be anyone's.
    #[error("the common name must be 1 to 253 printable ASCII characters")]
    IllegalName,
    /// More than one role.
    #[error("the certificate claims more than one role")]
    Roles,
}

impl Identity {
    /// Reads the leaf certificate of a client.
    ///
    /// # Errors
    /// When it does not name exactly one client with one role.
    ///
    /// Source: docs/wire-protocol.md, identity.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        let subject = certificate.subject();
        let names: Vec<&str> = subject
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .collect();
        let [common_name] = names[..] else {
            return Err(IdentityError::CommonNames(names.len()));
        };
        let mut roles = subject
            .iter_organizational_unit()
            .filter_map(|unit| match unit.as_str() {
                Ok(OPERATOR_UNIT) => Some(Role::Operator),
                Ok(CI_UNIT) => Some(Role::Ci),
                Ok(_) | Err(_) => None,
            });
        let role = roles.next().unwrap_or(Role::Agent);
        if roles.next().is_some() {
            return Err(IdentityError::Roles);
        }
        let legal = |b: u8| b.is_ascii_graphic() || b == b' ';
        if common_name.is_empty()
            || common_name.len() > MAX_NAME_BYTES
            || !common_name.bytes().all(legal)
        {
            return Err(IdentityError::IllegalName);
        }
        let name = match role {
            Role::Agent => machine_name(common_name),
            Role::Operator | Role::Ci => common_name,
        };
        let validity = certificate.validity();
        Ok(Self {
            role,
            name: name.into(),
            common_name: common_name.to_owned(),
            not_before: instant(validity.not_before.timestamp()),
            not_after: instant(validity.not_after.timestamp()),
        })
    }
}

/// `agent-<host>.<suffix>` names `<host>`; any other name is the host itself.
fn machine_name(common_name: &str) -> &str {
    common_name
        .strip_prefix("agent-")
        .and_then(|rest| rest.split_once('.'))
        .filter(|(host, suffix)| !host.is_empty() && !suffix.is_empty())
        .map_or(common_name, |(host, _)| host)
}

/// Certificates may carry years no calendar type holds; such a one is as good as never valid.
fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[track_caller]
    fn check(common_name: &str, unit: Option<&str>, role: Role, name: &str) {
        let mut names = vec![(DnType::CommonName, common_name)];
        names.extend(unit.map(|unit| (DnType::OrganizationalUnitName, unit)));
        let identity = Identity::from_certificate(&certificate(&names)).unwrap();
        assert_eq!((identity.role, &*identity.name), (role, name));
        assert!(identity.not_before < identity.not_after);
    }

    #[test]
    fn the_unit_decides_the_role_and_the_name_the_host() {
        check("web-1", None, Role::Agent, "web-1");
        check("agent-web-1.fleet.example", None, Role::Agent, "web-1");
        check("agent-web-1", None, Role::Agent, "agent-web-1");
        check("agent-.fleet", None, Role::Agent, "agent-.fleet");
        check("web-1.fleet", None, Role::Agent, "web-1.fleet");
        check("ada", Some(OPERATOR_UNIT), Role::Operator, "ada");
        check(
            "agent-x.y",
            Some(OPERATOR_UNIT),
            Role::Operator,
            "agent-x.y",
        );
        check("pipeline", Some(CI_UNIT), Role::Ci, "pipeline");
        check("web-1", Some("someone else"), Role::Agent, "web-1");
    }

    #[test]
    fn a_certificate_without_one_clear_name_names_nobody() {
        let read = |names: &[(DnType, &str)]| Identity::from_certificate(&certificate(names));
        let unit = (DnType::OrganizationalUnitName, OPERATOR_UNIT);
        assert_eq!(read(&[unit]), Err(IdentityError::CommonNames(0)));
        let name = (DnType::CommonName, "a\nb");
        assert_eq!(read(&[name]), Err(IdentityError::IllegalName));
        let long = "x".repeat(254);
        let name = (DnType::CommonName, long.as_str());
        assert_eq!(read(&[name]), Err(IdentityError::IllegalName));
        assert_eq!(
            Identity::from_certificate(b"nonsense"),
            Err(IdentityError::Unreadable)
        );
    }
}
