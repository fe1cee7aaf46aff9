//! `nixfleet certs`.

mod authority;

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use nixfleet_proto::Hostname;
use nixfleet_proto::fleet::is_client_name;

use crate::atomic_files;
use crate::command_error::CommandError;
use crate::stdout;
use authority::{Authority, Leaf, Purpose, Role};

/// Largest number of certificates per call.
const COUNT_MAX: u32 = 1_000_000;

/// A certificate authority for development, and certificates of it
#[derive(Debug, Args)]
#[command(after_help = "\
For development and tests: the authority's key lies in a file. Keys are readable by you alone.\n\
Hosts and people have different authorities, so make two: one DIR for ingest and its agents, another one for\n\
console, people and pipelines.\n\
Files below DIR: ca.crt, ca.key; server.crt, server.key; agents/HOST.crt, agents/HOST.key;\n\
people/NAME.crt, people/NAME.key; ci/NAME.crt, ci/NAME.key.")]
pub struct Arguments {
    /// The directory of the authority and its certificates
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Creates the certificate authority unless it exists
    Ca {
        /// Its common name
        #[arg(long, default_value = "NixFleet development CA")]
        name: String,
        /// Days it is valid
        #[arg(long, default_value_t = 3650)]
        days: u32,
    },
    /// Makes the certificate of a gateway: of ingest in the DIR of hosts, of console in that of people
    Server {
        /// A DNS name or IP address of the server; may be given several times
        #[arg(long = "name", default_values = ["localhost", "127.0.0.1", "::1"])]
        names: Vec<String>,
        /// Days it is valid
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Makes certificates of agents; the name is the host's
    Agent {
        /// Hostnames
        #[arg(value_name = "HOST", required_unless_present_any = ["count", "hosts"])]
        names: Vec<String>,
        /// A file with one hostname per line; empty lines and lines with # are skipped
        #[arg(long, value_name = "FILE")]
        hosts: Option<PathBuf>,
        /// As many hosts, named PREFIX-0001 and so on
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
        count: Option<u32>,
        /// The prefix for --count
        #[arg(long, default_value = "host")]
        prefix: String,
        /// Days they are valid
        #[arg(long, default_value_t = 30)]
        days: u32,
    },
    /// Creates certificates for people: organisational unit nixfleet-<role>
    Person {
        /// Names of the people
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Their role
        #[arg(long, value_enum, default_value_t = Role::Operator)]
        role: Role,
        /// A channel they are limited to; may be given several times
        #[arg(long = "channel", value_name = "CHANNEL", value_parser = channel)]
        channels: Vec<String>,
        /// Days they are valid
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Creates certificates for pipelines, which may push releases: organisational unit nixfleet-ci
    Ci {
        /// Names of the pipelines
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// A channel they are limited to; may be given several times
        #[arg(long = "channel", value_name = "CHANNEL", value_parser = channel)]
        channels: Vec<String>,
        /// Days they are valid
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
}

fn channel(text: &str) -> Result<String, String> {
    let legal = nixfleet_proto::id::is_channel_name(text);
    let fault = "must be one or more of a-z, 0-9, '_' and '-'";
    legal
        .then(|| text.to_owned())
        .ok_or_else(|| fault.to_owned())
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let dir = &arguments.dir;
    match &arguments.what {
        What::Ca { name, days } => {
            if authority::exists(dir) {
                return stdout::line(&format!("{} is kept", dir.join("ca.crt").display()));
            }
            authority::create(dir, name, *days)?;
            stdout::line(&dir.join("ca.crt").display().to_string())
        }
        What::Server { names, days } => {
            let leaf = Leaf {
                common_name: names.first().map_or("localhost", String::as_str),
                purpose: Purpose::Server { names },
                days: *days,
            };
            Authority::open(dir)?.issue(&leaf, &dir.join("server"))?;
            stdout::line(&dir.join("server.crt").display().to_string())
        }
        What::Agent {
            names,
            hosts,
            count,
            prefix,
            days,
        } => {
            let mut all = names.clone();
            if let Some(file) = hosts {
                all.extend(names_of(&atomic_files::read(file)?)?);
            }
            all.extend((1..=count.unwrap_or(0)).map(|number| format!("{prefix}-{number:04}")));
            issue_clients(arguments, (Role::Agent, &[]), &all, *days)
        }
        What::Person {
            names,
            role,
            channels,
            days,
        } => issue_clients(arguments, (*role, channels), names, *days),
        What::Ci {
            names,
            channels,
            days,
        } => issue_clients(arguments, (Role::Ci, channels), names, *days),
    }
}

fn names_of(bytes: &[u8]) -> Result<Vec<String>, CommandError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| CommandError::input(anyhow!("the file of hostnames is not UTF-8")))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

fn issue_clients(
    arguments: &Arguments,
    (role, channels): (Role, &[String]),
    names: &[String],
    days: u32,
) -> Result<(), CommandError> {
    if names.is_empty() {
        return Err(CommandError::input(anyhow!("there are no names")));
    }
    for name in names {
        if role == Role::Agent {
            check_host(name)?;
        } else {
            check_name(name)?;
        }
    }
    let authority = Authority::open(&arguments.dir)?;
    let directory = arguments.dir.join(role.directory());
    for name in names {
        let leaf = Leaf {
            common_name: name,
            purpose: Purpose::Client { role, channels },
            days,
        };
        authority.issue(&leaf, &directory.join(name))?;
    }
    stdout::line(&format!(
        "{} in {}",
        match names {
            [name] => format!("{name}.crt"),
            names => format!("{} certificates", names.len()),
        },
        directory.display()
    ))
}

/// The common name must be for the host that it names.
fn check_host(name: &str) -> Result<(), CommandError> {
    let host = Hostname::of_common_name(name).map_err(CommandError::input)?;
    if host.as_str() == name {
        return Ok(());
    }
    Err(CommandError::input(anyhow!(
        "a certificate for {name} would be that of host {host}: gateways read agent-<host>.<suffix> as <host>"
    )))
}

/// A name becomes a file name and a common name.
fn check_name(name: &str) -> Result<(), CommandError> {
    if is_client_name(name) && !name.starts_with('.') && !name.contains(['/', ' ']) {
        return Ok(());
    }
    Err(CommandError::input(anyhow!(
        "{name:?} must be 1 to 253 printable ASCII characters without spaces and slashes, and must not begin with \
         a dot"
    )))
}
