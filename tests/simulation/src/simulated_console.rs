//! Signatures of the simulated console: a text that only it writes stands for a signature.

use nixfleet_proto::{Actor, ActorKind, CommandOrigin, Entry, EntryBody, SignatureCheck};

const SIGNATURE: &str = "signed by the console";

/// Origin of a command that the console took.
pub fn origin() -> Box<CommandOrigin> {
    with_signature(SIGNATURE)
}

/// Origin of a command that somebody else wrote into the log.
pub fn forged_origin() -> Box<CommandOrigin> {
    with_signature("forged")
}

fn with_signature(signature: &str) -> Box<CommandOrigin> {
    Box::new(CommandOrigin {
        actor: Actor {
            kind: ActorKind::Certificate,
            issuer: "CN=people".to_owned(),
            subject: "op".to_owned(),
        },
        idempotency_key: "k".to_owned(),
        signature: signature.to_owned(),
        check: SignatureCheck::Unchecked,
    })
}

/// True for what the console signed.
pub fn is_signed(origin: &CommandOrigin) -> bool {
    origin.signature == SIGNATURE
}

/// Checks an entry if it is a command.
pub fn check(entry: &mut Entry) {
    if let EntryBody::Operator { origin, .. } = &mut entry.body {
        origin.check = match is_signed(origin) {
            true => SignatureCheck::Valid,
            false => SignatureCheck::Invalid,
        };
    }
}
