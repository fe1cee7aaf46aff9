//! `nixfleet verify`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use nixfleet_proto::fleet::{BootstrapNonces, Fleet, Revocations};
use nixfleet_proto::{RolloutId, Timestamp};
use nixfleet_trust::{
    ActiveKeys, Artifact, Freshness, ReleaseFault, Signed, TrustFile, VerifyError, verify,
    verify_manifest,
};
use serde::Serialize;

use crate::atomic_files;
use crate::command_error::{CommandError, InputContext};
use crate::stdout;
use crate::time;

/// Error code for a genuine, fresh manifest of another rollout than the expected one.
const ROLLOUT_ID_MISMATCH: &str = "RolloutIdMismatch";

/// Verifies signature, freshness and kind of an artifact
#[derive(Debug, Args)]
#[command(after_help = "\
Prints {\"result\":\"ok\"} or {\"result\":\"<name of the failed step>\"} with --json, and exits 0 or 1.\n\
Names: NoTrustRoots, Parse, Canonicalize, UnsupportedAlgorithm, BadSignature,\n\
SchemaVersionUnsupported, NotSigned, RejectedBeforeTimestamp, Stale, FutureDated; and\n\
RolloutIdMismatch when a rollout manifest is genuine but not of --rollout-id.\n\
A file that cannot be read and a trust file that is none are no answer: exit code 2.")]
pub struct Arguments {
    /// The artifact
    #[arg(long, value_name = "FILE")]
    artifact: PathBuf,
    /// Its detached signature, 64 raw bytes
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
    /// The trust file
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Expected kind of the artifact
    #[arg(long, value_enum)]
    kind: Kind,
    /// The rollout that a rollout manifest must be of
    #[arg(long, value_name = "ID")]
    rollout_id: Option<RolloutId>,
    /// The time to verify at, RFC 3339; the clock's when absent
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// Largest age in seconds, 60 s of slack not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 2_592_000)]
    freshness: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// fleet.resolved.json
    Fleet,
    /// A rollout manifest
    Rollout,
    /// Revoked certificates
    Revocations,
    /// Bootstrap nonces
    Nonces,
}

#[derive(Serialize)]
struct Answer {
    result: &'static str,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    if arguments.rollout_id.is_some() && arguments.kind != Kind::Rollout {
        return Err(CommandError::input(anyhow!(
            "--rollout-id needs --kind rollout"
        )));
    }
    let artifact = Signed {
        bytes: atomic_files::read(&arguments.artifact)?,
        signature: atomic_files::read(&arguments.signature)?,
    };
    let trust = TrustFile::parse(&atomic_files::read(&arguments.trust)?)
        .or_input_error(|| format!("{} cannot be used", arguments.trust.display()))?;
    let now = arguments.now.unwrap_or_else(time::now);
    for notice in trust.notices(now) {
        eprintln!("nixfleet: {notice}");
    }
    let keys = trust.release_keys(now);
    let freshness = Freshness {
        now,
        window: Duration::from_secs(arguments.freshness),
    };
    let verdict = check(arguments, &artifact, &keys, freshness);
    let result = verdict.as_ref().map_or_else(name, |()| "ok");
    if arguments.json {
        stdout::json(&Answer { result })?;
    } else {
        stdout::line(result)?;
    }
    match verdict {
        Ok(()) => Ok(()),
        Err(fault) => {
            eprintln!("nixfleet: {:#}", anyhow::Error::new(fault));
            Err(CommandError::negative())
        }
    }
}

fn check(
    arguments: &Arguments,
    artifact: &Signed,
    keys: &ActiveKeys,
    freshness: Freshness,
) -> Result<(), ReleaseFault> {
    match (arguments.kind, &arguments.rollout_id) {
        (Kind::Fleet, _) => genuine::<Fleet>(artifact, keys, freshness),
        (Kind::Revocations, _) => genuine::<Revocations>(artifact, keys, freshness),
        (Kind::Nonces, _) => genuine::<BootstrapNonces>(artifact, keys, freshness),
        (Kind::Rollout, None) => {
            genuine::<nixfleet_proto::fleet::RolloutManifest>(artifact, keys, freshness)
        }
        (Kind::Rollout, Some(rollout_id)) => {
            verify_manifest(artifact, keys, freshness, rollout_id).map(drop)
        }
    }
}

fn genuine<T: Artifact>(
    artifact: &Signed,
    keys: &ActiveKeys,
    freshness: Freshness,
) -> Result<(), ReleaseFault> {
    verify::<T>(&artifact.bytes, &artifact.signature, keys, freshness)
        .map(drop)
        .map_err(ReleaseFault::Verify)
}

fn name(fault: &ReleaseFault) -> &'static str {
    match fault {
        ReleaseFault::Verify(error) => VerifyError::name(error),
        ReleaseFault::RolloutId { .. }
        | ReleaseFault::FleetHash { .. }
        | ReleaseFault::Missing
        | ReleaseFault::Unexpected => ROLLOUT_ID_MISMATCH,
    }
}
