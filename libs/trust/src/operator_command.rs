//! Signatures of commands: a console signs what a person commands, the owner of the partition checks it.
//!
//! A key of a console attests who commanded; it names no closure, so agents never trust it.
//!
//! Source: docs/semantics.md, operator commands.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixfleet_proto::{
    Actor, CommandOrigin, Entry, EntryBody, OperatorCommand, SignatureCheck, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::canonical_json::{CanonicalizeError, canonicalize};
use crate::keys::{ActiveKeys, KeyError, TrustedKey};
use crate::sign::SigningKey;

/// Separates these signatures from those of any other document.
const DOMAIN: &[u8] = b"nixfleet operator command v1\n";

/// The document that is signed. The time of the entry is part of it: the fold rejects entries whose time is not
/// that of their message, so that a copy is refused later.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    /// Prefix of the fleet on the bus.
    fleet: &'a str,
    received_at: Timestamp,
    actor: &'a Actor,
    idempotency_key: &'a str,
    command: &'a OperatorCommand,
}

impl Document<'_> {
    fn bytes(&self) -> Result<Vec<u8>, CanonicalizeError> {
        let json = serde_json::to_vec(self).expect("texts and a time serialise");
        let mut bytes = DOMAIN.to_vec();
        bytes.extend_from_slice(&canonicalize(&json)?);
        Ok(bytes)
    }
}

/// Signs a command: an entry of this time for the fleet with this prefix.
///
/// # Errors
/// When a text of the command cannot be canonicalised.
pub fn sign_command(
    key: &SigningKey,
    (fleet, received_at): (&str, Timestamp),
    (actor, idempotency_key): (Actor, String),
    command: OperatorCommand,
) -> Result<Entry, CanonicalizeError> {
    let document = Document {
        fleet,
        received_at,
        actor: &actor,
        idempotency_key: &idempotency_key,
        command: &command,
    };
    let signature = STANDARD.encode(key.sign(&document.bytes()?));
    let origin = Box::new(CommandOrigin {
        actor,
        idempotency_key,
        signature,
        check: SignatureCheck::Valid,
    });
    Ok(Entry::new(
        received_at,
        EntryBody::Operator { command, origin },
    ))
}

/// Public keys of consoles; several while one is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsoleKeys {
    /// Each as `nixfleet keygen` prints it.
    pub keys: Vec<TrustedKey>,
}

/// Error of a file with keys of consoles.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ConsoleKeysError {
    #[error("not {{\"keys\":[{{\"algorithm\":…,\"public\":…}}]}}")]
    Shape(#[source] serde_json::Error),
    #[error("key {number} cannot be used")]
    Key {
        /// From 1.
        number: usize,
        #[source]
        source: KeyError,
    },
}

impl ConsoleKeys {
    /// Reads a file with keys.
    ///
    /// # Errors
    /// When one key cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConsoleKeysError> {
        let keys: Self = serde_json::from_slice(bytes).map_err(ConsoleKeysError::Shape)?;
        for (number, key) in (1..).zip(&keys.keys) {
            key.check()
                .map_err(|source| ConsoleKeysError::Key { number, source })?;
        }
        Ok(keys)
    }

    /// Checks the signature of a command for the fleet with this prefix.
    pub fn check(
        &self,
        fleet: &str,
        received_at: Timestamp,
        (command, origin): (&OperatorCommand, &CommandOrigin),
    ) -> SignatureCheck {
        let document = Document {
            fleet,
            received_at,
            actor: &origin.actor,
            idempotency_key: &origin.idempotency_key,
            command,
        };
        let active = ActiveKeys {
            keys: self.keys.clone(),
            reject_before: None,
        };
        let (Ok(bytes), Ok(signature)) = (document.bytes(), STANDARD.decode(&origin.signature))
        else {
            return SignatureCheck::Invalid;
        };
        match active.verify(&bytes, &signature) {
            Ok(()) => SignatureCheck::Valid,
            Err(_) => SignatureCheck::Invalid,
        }
    }

    /// Checks an entry if it is a command.
    pub fn check_entry(&self, fleet: &str, entry: &mut Entry) {
        if let EntryBody::Operator { command, origin } = &mut entry.body {
            origin.check = self.check(fleet, entry.received_at, (command, origin));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Algorithm;
    use nixfleet_proto::ActorKind;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_secret(Algorithm::Ed25519, &[seed; 32]).unwrap()
    }

    fn signed(key: &SigningKey) -> Entry {
        let actor = Actor {
            kind: ActorKind::Certificate,
            issuer: "CN=people".to_owned(),
            subject: "ada".to_owned(),
        };
        let command = OperatorCommand::ClearQuarantine {
            channel: "stable".into(),
            closure_hash: "c".into(),
            reason: "fixed".to_owned(),
        };
        let at = Timestamp::from_timestamp_nanos(1_700_000_000_123_456_789);
        let entry = sign_command(key, ("fleet", at), (actor, "k1".to_owned()), command);
        // As a reader gets it.
        let json = serde_json::to_vec(&entry.unwrap()).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn check(keys: &[&SigningKey], fleet: &str, mut entry: Entry) -> SignatureCheck {
        let keys = ConsoleKeys {
            keys: keys.iter().map(|key| key.public()).collect(),
        };
        keys.check_entry(fleet, &mut entry);
        let EntryBody::Operator { origin, .. } = entry.body else {
            panic!("{entry:?}");
        };
        origin.check
    }

    #[test]
    fn each_trusted_key_is_accepted_and_no_other() {
        let (old, new, foreign) = (key(1), key(2), key(3));
        for console in [&old, &new] {
            let found = check(&[&old, &new], "fleet", signed(console));
            assert_eq!(found, SignatureCheck::Valid);
        }
        let found = check(&[&old, &new], "fleet", signed(&foreign));
        assert_eq!(found, SignatureCheck::Invalid);
        assert_eq!(check(&[], "fleet", signed(&old)), SignatureCheck::Invalid);
    }

    #[test]
    fn every_field_is_signed() {
        let key = key(1);
        let changes: [fn(&mut Entry); 5] = [
            |entry| entry.received_at += chrono::TimeDelta::nanoseconds(1),
            |entry| origin(entry).actor.subject = "bob".to_owned(),
            |entry| origin(entry).actor.kind = ActorKind::Oidc,
            |entry| origin(entry).idempotency_key = "k2".to_owned(),
            |entry| {
                if let EntryBody::Operator {
                    command: OperatorCommand::ClearQuarantine { channel, .. },
                    ..
                } = &mut entry.body
                {
                    *channel = "edge".into();
                }
            },
        ];
        for change in changes {
            let mut entry = signed(&key);
            change(&mut entry);
            assert_eq!(check(&[&key], "fleet", entry), SignatureCheck::Invalid);
        }
        let found = check(&[&key], "other", signed(&key));
        assert_eq!(found, SignatureCheck::Invalid);
    }

    fn origin(entry: &mut Entry) -> &mut CommandOrigin {
        let EntryBody::Operator { origin, .. } = &mut entry.body else {
            panic!("no command");
        };
        origin
    }
}
