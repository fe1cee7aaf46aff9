//! `nixfleet revoke`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use nixfleet_proto::fleet::{Meta, Revocation, Revocations, RevokedClient, is_client_name};
use nixfleet_proto::{Hostname, Timestamp};
use nixfleet_trust::release_bundle::signature_file;
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{ActiveKeys, Freshness, TrustFile, verify};
use serde::Serialize;

use crate::atomic_files::{self, Access, Existing};
use crate::command_error::{CommandError, InputContext};
use crate::{stdout, time};

/// Adds entries to the signed list of refused certificates, or makes the list
#[derive(Debug, Args)]
#[command(after_help = "\
Gateways refuse the certificates of a listed client that were issued before its date; a new certificate passes.\n\
Entries are only ever added: a list that lacks some lets their certificates in again. The list is signed anew,\n\
without entries too, and gateways take none that was signed earlier than one they obeyed.\n\
Files: LIST, and LIST.sig, its signature.")]
pub struct Arguments {
    /// The list; it is made when it does not exist
    #[arg(value_name = "LIST")]
    list: PathBuf,
    /// The signing key, as `nixfleet keygen` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Trust file with the key that signed the list before, when it was another one
    #[arg(long, value_name = "FILE")]
    trust_file: Option<PathBuf>,
    /// A host; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<Hostname>,
    /// A person, in whatever role; may be given several times
    #[arg(long = "person", value_name = "NAME", value_parser = client_name)]
    people: Vec<String>,
    /// A pipeline; may be given several times
    #[arg(long = "pipeline", value_name = "NAME", value_parser = client_name)]
    pipelines: Vec<String>,
    /// Certificates issued before this time are refused, RFC 3339; the clock's when absent
    #[arg(long, value_name = "TIME")]
    before: Option<Timestamp>,
    /// Why, for people
    #[arg(long)]
    reason: Option<String>,
    /// Who says so
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    list: PathBuf,
    signed_at: Timestamp,
    entries: usize,
    added: usize,
}

fn client_name(name: &str) -> Result<String, String> {
    let fault = "must be 1 to 253 printable ASCII characters";
    let is_legal = is_client_name(name);
    is_legal
        .then(|| name.to_owned())
        .ok_or_else(|| fault.to_owned())
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let key = SigningKey::parse(&atomic_files::read(&arguments.key)?)
        .or_input_error(|| format!("{} cannot be used", arguments.key.display()))?;
    let now = time::now();
    let mut list = match arguments.list.exists() {
        true => signed_list(arguments, &key, now)?,
        false => empty(),
    };
    let added = entries(arguments, now);
    let count = added.len();
    list.revocations.extend(added);
    list.meta.signed_at = Some(later_than(list.meta.signed_at, now)?);
    list.meta.signature_algorithm = Some(key.algorithm().name().to_owned());
    let document = serde_json::to_vec(&list).or_input_error(|| "writing the list".to_owned())?;
    let (bytes, signature) = key.sign_json(&document).map_err(CommandError::input)?;
    let write = |path: &Path, bytes: &[u8]| {
        atomic_files::write(path, bytes, Access::Public, Existing::Replace)
    };
    write(&signature_path(&arguments.list), &signature)?;
    write(&arguments.list, &bytes)?;
    report(arguments, &list, count)
}

fn empty() -> Revocations {
    Revocations {
        schema_version: 1,
        revocations: Vec::new(),
        meta: Meta {
            schema_version: 1,
            signed_at: None,
            ci_commit: None,
            signature_algorithm: None,
        },
    }
}

/// The list as it is, when its signature is good: nobody's changes are signed here.
fn signed_list(
    arguments: &Arguments,
    key: &SigningKey,
    now: Timestamp,
) -> Result<Revocations, CommandError> {
    let keys = match &arguments.trust_file {
        Some(path) => TrustFile::parse(&atomic_files::read(path)?)
            .or_input_error(|| format!("{} cannot be used", path.display()))?
            .release_keys(now),
        None => ActiveKeys {
            keys: vec![key.public()],
            reject_before: None,
        },
    };
    let bytes = atomic_files::read(&arguments.list)?;
    let signature = atomic_files::read(&signature_path(&arguments.list))?;
    let freshness = Freshness {
        now,
        window: Duration::MAX,
    };
    let list = verify::<Revocations>(&bytes, &signature, &keys, freshness);
    let list = list.map_err(|error| {
        let context = format!("{} is not a list to add to", arguments.list.display());
        CommandError::refused(anyhow!(error).context(context))
    })?;
    Ok(list.into_payload())
}

fn entries(arguments: &Arguments, now: Timestamp) -> Vec<Revocation> {
    let hosts = arguments.hosts.iter().cloned().map(RevokedClient::Host);
    let people = arguments.people.iter().cloned().map(RevokedClient::Person);
    let pipelines = arguments
        .pipelines
        .iter()
        .cloned()
        .map(RevokedClient::Pipeline);
    let entry = |client| Revocation {
        client,
        not_before: arguments.before.unwrap_or(now),
        reason: arguments.reason.clone(),
        revoked_by: arguments.by.clone(),
    };
    hosts.chain(people).chain(pipelines).map(entry).collect()
}

/// A time of signing after the one before: gateways take no other list of the same time.
fn later_than(before: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, CommandError> {
    match before {
        Some(before) if before >= now => Err(CommandError::refused(anyhow!(
            "the list was signed at {before}, and it is {now} here: wait, or set the clock"
        ))),
        _ => Ok(now),
    }
}

fn signature_path(list: &Path) -> PathBuf {
    PathBuf::from(signature_file(&list.to_string_lossy()))
}

fn report(arguments: &Arguments, list: &Revocations, added: usize) -> Result<(), CommandError> {
    let summary = Summary {
        list: arguments.list.clone(),
        signed_at: list.meta.signed_at.unwrap_or_default(),
        entries: list.revocations.len(),
        added,
    };
    if arguments.json {
        return stdout::json(&summary);
    }
    stdout::line(&format!(
        "{}: {} entries, {} of them new, signed at {}",
        summary.list.display(),
        summary.entries,
        summary.added,
        summary.signed_at
    ))
}
