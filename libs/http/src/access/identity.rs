//! Who a client is, from its certificate alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use nixfleet_proto::id::is_channel_name;
use nixfleet_proto::{ChannelName, Timestamp};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Beginning of every alternative name, a URI, that is meant for the gateways, in any case.
const NAMESPACE: &str = "urn:nixfleet:";
/// Beginning of one that limits a certificate to a channel.
const CHANNEL_URI: &str = "urn:nixfleet:channel:";
/// Longest name taken from a certificate, the limit of a DNS name.
const MAX_NAME_BYTES: usize = 253;

/// The rights that a certificate gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// One host of the fleet: the endpoints of agents, for itself.
    Agent,
    /// Reads everything, changes nothing.
    Viewer,
    /// Reads, commands and pushes releases.
    Operator,
    /// Reads, and approves what waits for an approval.
    Approver,
    /// Everything that a person may do.
    Admin,
    /// A pipeline: pushes releases.
    Ci,
}

/// Every role of people and pipelines; certificates name them by organisational unit.
pub const PEOPLE: [Role; 5] = [
    Role::Viewer,
    Role::Operator,
    Role::Approver,
    Role::Admin,
    Role::Ci,
];

impl Role {
    /// The name in logs, answers and command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
            Self::Ci => "ci",
        }
    }

    /// The role that an organisational unit names: `nixfleet-<name>`, of people and pipelines only.
    pub fn of_unit(unit: &str) -> Option<Self> {
        let name = unit.strip_prefix("nixfleet-")?;
        PEOPLE.into_iter().find(|role| role.name() == name)
    }
}

/// The channels that a certificate may see and command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelLimit {
    /// Every channel.
    All,
    /// These alone.
    Only(BTreeSet<ChannelName>),
}

/// A client whose certificate was verified against the client authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its role.
    pub role: Role,
    /// Its channels.
    pub channels: ChannelLimit,
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
    /// An alternative name that limits it to something that is no channel.
    #[error("the certificate is limited to {0:?}, which is no name of a channel")]
    Channel(String),
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
        let units = subject.iter_organizational_unit();
        let units: Vec<&str> = units.filter_map(|unit| unit.as_str().ok()).collect();
        let mut roles = units.iter().filter_map(|unit| Role::of_unit(unit));
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
            Role::Viewer | Role::Operator | Role::Approver | Role::Admin | Role::Ci => common_name,
        };
        let validity = certificate.validity();
        Ok(Self {
            role,
            channels: channel_limit(&certificate)?,
            name: name.into(),
            common_name: common_name.to_owned(),
            not_before: instant(validity.not_before.timestamp()),
            not_after: instant(validity.not_after.timestamp()),
        })
    }
}

impl ChannelLimit {
    /// The channels of the limit; `None` for every channel.
    pub fn names(&self) -> Option<&BTreeSet<ChannelName>> {
        match self {
            Self::All => None,
            Self::Only(channels) => Some(channels),
        }
    }
}

impl Identity {
    /// True when the certificate is not limited to other channels.
    pub fn sees(&self, channel: &ChannelName) -> bool {
        let channels = self.channels.names();
        channels.is_none_or(|channels| channels.contains(channel))
    }
}

fn channel_limit(certificate: &X509Certificate<'_>) -> Result<ChannelLimit, IdentityError> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| IdentityError::Unreadable)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut channels = BTreeSet::new();
    for name in names {
        let GeneralName::URI(uri) = name else {
            continue;
        };
        match uri.strip_prefix(CHANNEL_URI) {
            Some(channel) if is_channel_name(channel) => {
                channels.insert(ChannelName::from(channel.to_owned()));
            }
            Some(other) => return Err(IdentityError::Channel(other.to_owned())),
            // A limit that is misspelt must not read as none.
            None if uri.to_ascii_lowercase().starts_with(NAMESPACE) => {
                return Err(IdentityError::Channel((*uri).to_owned()));
            }
            None => {}
        }
    }
    Ok(match channels.is_empty() {
        true => ChannelLimit::All,
        false => ChannelLimit::Only(channels),
    })
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
        check("ada", Some("nixfleet-operator"), Role::Operator, "ada");
        check(
            "agent-x.y",
            Some("nixfleet-operator"),
            Role::Operator,
            "agent-x.y",
        );
        check("pipeline", Some("nixfleet-ci"), Role::Ci, "pipeline");
        check("web-1", Some("someone else"), Role::Agent, "web-1");
    }

    #[test]
    fn alternative_names_limit_a_certificate_to_channels() {
        let read = |uris: &[&str]| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "ada");
            for uri in uris {
                let uri = (*uri).try_into().unwrap();
                params.subject_alt_names.push(rcgen::SanType::URI(uri));
            }
            let key = KeyPair::generate().unwrap();
            Identity::from_certificate(params.self_signed(&key).unwrap().der())
        };
        let [stable, edge] = ["stable", "edge"].map(|name| ChannelName::from(name.to_owned()));
        let all = read(&["https://example.org"]).unwrap();
        assert!(all.sees(&stable));
        let uris = ["urn:nixfleet:channel:stable", "urn:nixfleet:channel:beta"];
        let limited = read(&uris).unwrap();
        assert!(limited.sees(&stable) && !limited.sees(&edge));
        let wrong = read(&["urn:nixfleet:channel:No Channel"]);
        assert_eq!(wrong, Err(IdentityError::Channel("No Channel".to_owned())));
        for misspelt in [
            "urn:nixfleet:channels:stable",
            "URN:NixFleet:channel:stable",
        ] {
            let wrong = read(&[misspelt]);
            assert_eq!(wrong, Err(IdentityError::Channel(misspelt.to_owned())));
        }
    }

    #[test]
    fn a_certificate_without_one_clear_name_names_nobody() {
        let read = |names: &[(DnType, &str)]| Identity::from_certificate(&certificate(names));
        let unit = (DnType::OrganizationalUnitName, "nixfleet-operator");
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

    #[test]
    fn units_name_the_roles_of_people() {
        for role in PEOPLE {
            let unit = format!("nixfleet-{}", role.name());
            assert_eq!(Role::of_unit(&unit), Some(role));
        }
        assert_eq!(Role::of_unit("nixfleet-agent"), None);
        assert_eq!(Role::of_unit("operator"), None);
    }
}
