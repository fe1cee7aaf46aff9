//! `nixfleet release`.

mod directory;

use std::path::PathBuf;

use clap::Args;
use nixfleet_proto::{RolloutId, Timestamp};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{
    BuiltRelease, Notice, ReleaseStamp, ReleaseUpload, build_release, canonical_hash,
};
use serde::Serialize;

use crate::api_responses::Accepted;
use crate::atomic_files;
use crate::client::{self, Client, Connection, Request};
use crate::command_error::{CommandError, InputContext};
use crate::stdout;
use crate::time;

/// Resolves, checks and signs a fleet; refuses an incomplete one with every fault
#[derive(Debug, Args)]
#[command(after_help = "\
The source is a fleet as in docs/manifests.md. It may leave out `waves`, which then come from the\n\
selectors of the channels' policies, and `meta`, which is always written anew.\n\
Exit code 1: the fleet is incomplete, or the server refused the release; nothing is written then.")]
pub struct Arguments {
    /// The fleet source, JSON; `-` reads standard input
    #[arg(value_name = "FLEET")]
    source: PathBuf,
    /// The signing key, as `nixfleet keygen` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The commit, lower-case hexadecimal; the source's meta.ciCommit when absent
    #[arg(long)]
    commit: Option<String>,
    /// Time of signing, RFC 3339; the clock's when absent
    #[arg(long, value_name = "TIME")]
    signed_at: Option<Timestamp>,
    /// Directory to write the release to; what was there of an earlier one is replaced
    #[arg(long, value_name = "DIR", required_unless_present = "push")]
    out: Option<PathBuf>,
    /// Base URL of a console to push the release to, that of the context when absent
    #[arg(long, value_name = "URL", num_args = 0..=1)]
    push: Option<Option<String>>,
    /// Certificate authority of that server, PEM
    #[arg(long, env = "NIXFLEET_CA")]
    ca: Option<PathBuf>,
    /// Your certificate of role operator or ci, PEM
    #[arg(long, env = "NIXFLEET_CERT")]
    client_cert: Option<PathBuf>,
    /// The key of your certificate, PEM
    #[arg(long, env = "NIXFLEET_KEY")]
    client_key: Option<PathBuf>,
    /// Another context than the current one, see `nixfleet context`
    #[arg(long, value_name = "NAME", env = "NIXFLEET_CONTEXT")]
    context: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    fleet_hash: String,
    signed_at: Timestamp,
    rollouts: Vec<&'a RolloutId>,
    notices: &'a [Notice],
    #[serde(skip_serializing_if = "Option::is_none")]
    pushed: Option<serde_json::Value>,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let key = SigningKey::parse(&atomic_files::read(&arguments.key)?)
        .or_input_error(|| format!("{} cannot be used", arguments.key.display()))?;
    let source = read_source(&arguments.source)?;
    let stamp = ReleaseStamp {
        signed_at: arguments.signed_at.unwrap_or_else(time::now),
        commit: arguments.commit.clone(),
    };
    let built = build_release(&source, &stamp, &key).map_err(CommandError::refused)?;
    // Pushing comes first, so that no release that the server refuses is written.
    let pushed = match &arguments.push {
        Some(url) => Some(push(arguments, url.as_ref(), &built)?),
        None => None,
    };
    if let Some(out) = &arguments.out {
        directory::write(out, &built)?;
    }
    report(arguments, &stamp, &built, pushed)
}

fn read_source(path: &std::path::Path) -> Result<Vec<u8>, CommandError> {
    if path.as_os_str() != "-" {
        return atomic_files::read(path);
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
        .or_input_error(|| "reading standard input".to_owned())?;
    Ok(bytes)
}

fn push(
    arguments: &Arguments,
    url: Option<&String>,
    built: &BuiltRelease,
) -> Result<serde_json::Value, CommandError> {
    let connection = Connection {
        url: url.cloned(),
        ca: arguments.ca.clone(),
        cert: arguments.client_cert.clone(),
        key: arguments.client_key.clone(),
        context: arguments.context.clone(),
    };
    Client::new(&connection)?.push(
        &Request::path(&["v1", "manifests"]),
        &ReleaseUpload::from(&built.bundle),
    )
}

fn report(
    arguments: &Arguments,
    stamp: &ReleaseStamp,
    built: &BuiltRelease,
    pushed: Option<serde_json::Value>,
) -> Result<(), CommandError> {
    let hash = canonical_hash(&built.bundle.fleet.bytes)
        .or_input_error(|| "the fleet that was just signed".to_owned())?;
    if arguments.json {
        return stdout::json(&Summary {
            fleet_hash: hash.to_string(),
            signed_at: stamp.signed_at,
            rollouts: built.rollouts.values().collect(),
            notices: &built.notices,
            pushed,
        });
    }
    stdout::line(&format!(
        "fleet {hash} signed at {}",
        time::short(stamp.signed_at)
    ))?;
    for rollout in built.rollouts.values() {
        stdout::line(&format!("  {rollout}"))?;
    }
    for notice in &built.notices {
        stdout::line(&format!("notice: {notice}"))?;
    }
    if let Some(pushed) = pushed {
        let accepted: Accepted = client::read(&pushed)?;
        let what = if accepted.renewed {
            "accepted; its content is that of the release before, so only its freshness is renewed"
        } else {
            "accepted"
        };
        stdout::line(what)?;
        for notice in &accepted.notices {
            let text = notice["message"].as_str().unwrap_or("?");
            stdout::line(&format!("server notices: {text}"))?;
        }
    }
    Ok(())
}
