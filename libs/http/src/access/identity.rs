//! Who a client is, from its certificate alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use nixfleet_proto::fleet::is_client_name;
use nixfleet_proto::id::is_channel_name;
use nixfleet_proto::{ChannelName, Hostname, Timestamp};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use self::subject::Subject;

mod error;
mod subject;

pub use self::error::IdentityError;

/// In every alternative name that is meant for the gateways, in any case.
const NAMESPACE: &str = "urn:nixfleet";
/// Beginning of one, a URI, that limits a certificate to a channel.
const CHANNEL_URI: &str = "urn:nixfleet:channel:";
/// Beginning of every organisational unit that is meant for the gateways, in any case.
const UNIT_PREFIX: &str = "nixfleet-";

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
        let name = unit.strip_prefix(UNIT_PREFIX)?;
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
    /// The host of an agent; of no one else.
    pub host: Option<Hostname>,
    /// Name of the authority that issued the certificate.
    pub issuer: String,
    /// The certificate's common name as it is.
    pub common_name: String,
    /// Start of the certificate's validity; revocations compare with it.
    pub not_before: Timestamp,
    /// End of the certificate's validity. Checked per request, because connections and resumed
    /// sessions outlive certificates.
    pub not_after: Timestamp,
}

impl Identity {
    /// Reads the leaf certificate of a client. Whatever could be read in two ways names nobody.
    ///
    /// # Errors
    /// When it does not name exactly one client with one role.
    ///
    /// Source: docs/wire-protocol.md, identity.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        if !rest.is_empty() {
            return Err(IdentityError::Unreadable);
        }
        let Subject { common_name, unit } = Subject::read(certificate.subject())?;
        let role = unit.map_or(Ok(Role::Agent), role_of)?;
        let host = match role {
            Role::Agent => {
                Some(Hostname::of_common_name(common_name).map_err(IdentityError::Host)?)
            }
            Role::Viewer | Role::Operator | Role::Approver | Role::Admin | Role::Ci => {
                if !is_client_name(common_name) {
                    return Err(IdentityError::IllegalName);
                }
                None
            }
        };
        let validity = certificate.validity();
        Ok(Self {
            role,
            channels: channel_limit(&certificate)?,
            name: host.as_ref().map_or(common_name, Hostname::as_str).into(),
            host,
            issuer: certificate.issuer().to_string(),
            common_name: common_name.to_owned(),
            not_before: instant(validity.not_before.timestamp()),
            not_after: instant(validity.not_after.timestamp()),
        })
    }
}

/// The role that an organisational unit names; a misspelt one must not read as that of a host.
fn role_of(unit: &str) -> Result<Role, IdentityError> {
    match Role::of_unit(unit) {
        Some(role) => Ok(role),
        None if unit.trim().to_ascii_lowercase().starts_with(UNIT_PREFIX) => {
            Err(IdentityError::Role(unit.to_owned()))
        }
        None => Ok(Role::Agent),
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
    let names = names.map_err(|_| IdentityError::AlternativeName)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut channels = BTreeSet::new();
    for name in names {
        let channel = match name {
            GeneralName::URI(uri) => channel_of(uri)?,
            // A limit of the wrong kind of name must not read as none.
            GeneralName::DNSName(text) | GeneralName::RFC822Name(text) if is_ours(text) => {
                return Err(IdentityError::Channel((*text).to_owned()));
            }
            GeneralName::Invalid(..) => return Err(IdentityError::AlternativeName),
            GeneralName::DNSName(_)
            | GeneralName::RFC822Name(_)
            | GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => None,
        };
        if let Some(channel) = channel
            && !channels.insert(channel.clone())
        {
            return Err(IdentityError::ChannelTwice(channel));
        }
    }
    Ok(match channels.is_empty() {
        true => ChannelLimit::All,
        false => ChannelLimit::Only(channels),
    })
}

/// The channel of a URI; `None` when it is not meant for the gateways. A limit that is misspelt must not read as
/// none.
fn channel_of(uri: &str) -> Result<Option<ChannelName>, IdentityError> {
    match uri.strip_prefix(CHANNEL_URI) {
        Some(channel) if is_channel_name(channel) => Ok(Some(ChannelName::from(channel))),
        Some(other) => Err(IdentityError::Channel(other.to_owned())),
        None if is_ours(uri) => Err(IdentityError::Channel(uri.to_owned())),
        None => Ok(None),
    }
}

fn is_ours(name: &str) -> bool {
    name.to_ascii_lowercase().contains(NAMESPACE)
}

/// Certificates may carry years no calendar type holds; such a one is as good as never valid.
fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap_or_default()
}

#[cfg(test)]
mod tests;
