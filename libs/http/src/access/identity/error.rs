//! Why a verified certificate names nobody.

use nixfleet_proto::{ChannelName, HostnameError};

/// Why a verified certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are no certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// An attribute of the subject that could mean anything to somebody else.
    #[error("attribute {attribute} of the certificate's subject {fault}")]
    Attribute {
        /// Its abbreviation or object identifier.
        attribute: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No common name.
    #[error("the certificate has no common name")]
    NoCommonName,
    /// The name cannot be a host's.
    #[error("the certificate is for no host")]
    Host(#[source] HostnameError),
    /// The name cannot be a person's or pipeline's.
    #[error("the common name must be 1 to 253 printable ASCII characters")]
    IllegalName,
    /// An organisational unit that is meant for the gateways and names no role.
    #[error("the organisational unit {0:?} names no role")]
    Role(String),
    /// An alternative name that cannot be read.
    #[error("an alternative name of the certificate cannot be read")]
    AlternativeName,
    /// An alternative name that limits it to something that is no channel.
    #[error("the certificate is limited to {0:?}, which is no name of a channel")]
    Channel(String),
    /// Two equal limits: one of them was meant to be another one.
    #[error("the certificate is limited to channel {0} twice")]
    ChannelTwice(ChannelName),
}
