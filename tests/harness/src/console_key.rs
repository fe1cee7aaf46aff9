//! The key with which consoles sign commands, and the file of public keys for reducers.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nixfleet_proto::{Actor, ActorKind, Entry, OperatorCommand, Timestamp};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, ConsoleKeys, sign_command};

/// The secret of the development key. It needs no protection: only reducers of tests trust the key.
const SECRET: [u8; 32] = [43; 32];

/// The development key.
///
/// # Errors
/// Never, in practice: the secret is a constant.
pub fn development() -> Result<SigningKey> {
    Ok(SigningKey::from_secret(Algorithm::Ed25519, &SECRET)?)
}

/// Keys that reducers of tests trust.
///
/// # Errors
/// As [`development`].
pub fn trusted() -> Result<ConsoleKeys> {
    let keys = vec![development()?.public()];
    Ok(ConsoleKeys { keys })
}

/// An entry with a command of `ada`, signed for the fleet with this prefix.
///
/// # Errors
/// As [`development`].
pub fn signed(fleet: &str, at: Timestamp, command: OperatorCommand) -> Result<Entry> {
    let actor = Actor {
        kind: ActorKind::Certificate,
        issuer: "CN=people".to_owned(),
        subject: "ada".to_owned(),
    };
    let origin = (actor, "test".to_owned());
    Ok(sign_command(&development()?, (fleet, at), origin, command)?)
}

/// Writes `console.key` for consoles and [`keys_file`] for reducers; returns the first.
///
/// # Errors
/// When they cannot be written.
pub fn write(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("console.key");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(&serde_json::to_vec(&development()?.to_file())?)?;
    std::fs::write(keys_file(dir), serde_json::to_vec(&trusted()?)?)
        .with_context(|| format!("writing {}", keys_file(dir).display()))?;
    Ok(path)
}

/// The file with the public keys.
pub fn keys_file(dir: &Path) -> PathBuf {
    dir.join("console-keys.json")
}
