//! Who gave a command, and the signature of the console that took it.
//!
//! Source: docs/semantics.md, operator commands.

use serde::{Deserialize, Serialize};

/// How a person or pipeline proved its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// By a client certificate; the issuer is the authority's name.
    Certificate,
    /// By OpenID Connect; the issuer is the provider's URL.
    Oidc,
}

/// A person or pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// Proof of the identity.
    pub kind: ActorKind,
    /// Who vouches for the subject.
    pub issuer: String,
    /// Name that the issuer gives.
    pub subject: String,
}

/// Origin of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandOrigin {
    /// Who gave the command.
    pub actor: Actor,
    /// Tells a repetition of the command from another one.
    pub idempotency_key: String,
    /// Signature of the console over the entry, standard base64.
    pub signature: String,
    /// What the reader found out about the signature. Never written: every reader checks for itself, or takes
    /// the result from the outcome.
    #[serde(skip)]
    pub check: SignatureCheck,
}

/// What a reader found out about a signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignatureCheck {
    /// Nobody has checked it: the fold rejects the command.
    #[default]
    Unchecked,
    /// It is that of a trusted console.
    Valid,
    /// No trusted console signed this entry.
    Invalid,
}

impl Actor {
    /// Most bytes of issuer and subject each.
    pub const NAME_BYTES_MAX: usize = 1024;
}

impl CommandOrigin {
    /// Most bytes of an idempotency key.
    pub const KEY_BYTES_MAX: usize = 256;
}
