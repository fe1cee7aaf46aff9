//! `nixfleet keygen`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, TrustFile};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;

use crate::atomic_files::{self, Access, Existing};
use crate::command_error::{CommandError, InputContext};
use crate::stdout;

/// Attempts to draw a valid P-256 scalar before the random source counts as broken.
const DRAWS_MAX: u32 = 16;

/// Makes a signing key; prints its public half as trust files have it
#[derive(Debug, Args)]
pub struct Arguments {
    /// Scheme of the key
    #[arg(long, value_enum, default_value_t = Scheme::Ed25519)]
    algorithm: Scheme,
    /// File for the private key, readable by its owner only
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write a trust file with only this key
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Overwrite existing files; an old private key is lost
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scheme {
    /// Ed25519
    Ed25519,
    /// ECDSA over P-256 with SHA-256
    EcdsaP256,
}

impl From<Scheme> for Algorithm {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Ed25519 => Self::Ed25519,
            Scheme::EcdsaP256 => Self::EcdsaP256,
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let existing = if arguments.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    if let Some(trust) = arguments.trust.as_ref().filter(|path| path.exists())
        && !arguments.force
    {
        return Err(CommandError::input(anyhow!(
            "{} is there already; --force replaces it",
            trust.display()
        )));
    }
    let key = generate(arguments.algorithm.into())?;
    atomic_files::write(
        &arguments.out,
        &document(&key.to_file())?,
        Access::Secret,
        existing,
    )?;
    if let Some(trust) = &arguments.trust {
        let file = TrustFile::of(key.public());
        atomic_files::write(trust, &document(&file)?, Access::Public, existing)?;
    }
    stdout::json(&key.public())
}

fn generate(algorithm: Algorithm) -> Result<SigningKey, CommandError> {
    for _ in 0..DRAWS_MAX {
        let mut secret = [0_u8; 32];
        OsRng
            .try_fill_bytes(&mut secret)
            .or_input_error(|| "the system has no randomness".to_owned())?;
        if let Ok(key) = SigningKey::from_secret(algorithm, &secret) {
            return Ok(key);
        }
    }
    Err(CommandError::input(anyhow!(
        "the system's randomness makes no {} key",
        algorithm.name()
    )))
}

fn document(value: &impl Serialize) -> Result<Vec<u8>, CommandError> {
    let mut bytes =
        serde_json::to_vec_pretty(value).or_input_error(|| "cannot write JSON".to_owned())?;
    bytes.push(b'\n');
    Ok(bytes)
}
