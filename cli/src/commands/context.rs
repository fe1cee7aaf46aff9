//! `nixfleet context`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::atomic_files;
use crate::client;
use crate::command_error::{CommandError, InputContext};
use crate::contexts::{Context, Contexts};
use crate::stdout;
use crate::table::{add_row, render, table};

/// Keeps the consoles and certificates that commands use, by name
#[derive(Debug, Args)]
#[command(after_help = "\
Contexts are kept in $NIXFLEET_CONTEXTS, or nixfleet/contexts.json in $XDG_CONFIG_HOME or ~/.config.\n\
Options and variables (--url, NIXFLEET_URL, …) go before the context.")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Adds a context or replaces it; the first one becomes the current one
    Set {
        /// Name of the context
        name: String,
        /// Base URL of the console
        #[arg(long)]
        url: String,
        /// Certificate authority of the server, PEM
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
        /// Your certificate, PEM
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// The key of your certificate, PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Makes a context the current one
    Use {
        /// Name of the context
        name: String,
    },
    /// Shows all contexts; `*` marks the current one
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Removes a context; its files stay
    Remove {
        /// Name of the context
        name: String,
    },
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let mut contexts = Contexts::read()?;
    match &arguments.action {
        Action::Set {
            name,
            url,
            ca,
            cert,
            key,
        } => {
            client::base_url(url)?;
            let context = Context {
                url: url.clone(),
                ca: absolute(ca)?,
                cert: absolute(cert)?,
                key: absolute(key)?,
            };
            contexts.contexts.insert(name.clone(), context);
            contexts.current.get_or_insert_with(|| name.clone());
            contexts.write()
        }
        Action::Use { name } => {
            if !contexts.contexts.contains_key(name) {
                return Err(contexts.unknown(name));
            }
            contexts.current = Some(name.clone());
            contexts.write()
        }
        Action::List { json: true } => stdout::json(&contexts),
        Action::List { json: false } => list(&contexts),
        Action::Remove { name } => {
            if contexts.contexts.remove(name).is_none() {
                return Err(contexts.unknown(name));
            }
            contexts.current = contexts.current.filter(|current| current != name);
            contexts.write()
        }
    }
}

/// The file from wherever a later command runs.
fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    atomic_files::read(path)?;
    std::path::absolute(path).or_input_error(|| format!("{} is no path", path.display()))
}

fn list(contexts: &Contexts) -> Result<(), CommandError> {
    let mut rows = table(&["CURRENT", "NAME", "URL", "CERTIFICATE"]);
    for (name, context) in &contexts.contexts {
        let is_current = contexts.current.as_ref() == Some(name);
        let mark = if is_current { "*" } else { "" };
        let cert = context.cert.display().to_string();
        let cells = [mark.to_owned(), name.clone(), context.url.clone(), cert];
        add_row(&mut rows, cells);
    }
    stdout::line(&render(&rows))
}
