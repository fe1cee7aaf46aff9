//! Paths of the server binaries and of the programs of this workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Overrides the nats-server binary.
pub const NATS_VARIABLE: &str = "NIXFLEET_NATS_SERVER";

/// Overrides the directory with `postgres`, `initdb` and `psql`.
pub const POSTGRES_VARIABLE: &str = "NIXFLEET_POSTGRES_BIN";

/// `.dev/servers.json`, written by `cargo xtask setup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerBinaries {
    /// The nats-server binary.
    pub nats_server: PathBuf,
    /// Directory with `postgres` and `initdb`.
    pub postgres_bin: PathBuf,
    /// Directory for `LD_LIBRARY_PATH`, if the installation needs its own libraries.
    pub postgres_lib: Option<PathBuf>,
}

impl ServerBinaries {
    /// Reads `.dev/servers.json` of this checkout and applies the overrides.
    ///
    /// # Errors
    /// Names the missing file or binary and the command that provides it.
    pub fn find() -> Result<Self> {
        let nats = std::env::var_os(NATS_VARIABLE).map(PathBuf::from);
        let postgres = std::env::var_os(POSTGRES_VARIABLE).map(PathBuf::from);
        let servers = match (nats, postgres) {
            (Some(nats_server), Some(postgres_bin)) => Self {
                nats_server,
                postgres_bin,
                postgres_lib: None,
            },
            (nats, postgres) => {
                let mut servers = Self::read(&checkout().join(".dev/servers.json"))?;
                if let Some(nats) = nats {
                    servers.nats_server = nats;
                }
                if let Some(bin) = postgres {
                    servers.postgres_bin = bin;
                    servers.postgres_lib = None;
                }
                servers
            }
        };
        servers.check()?;
        Ok(servers)
    }

    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| {
            format!(
                "no test servers: {} cannot be read; run `cargo xtask setup`, or set {NATS_VARIABLE} \
                 and {POSTGRES_VARIABLE}",
                path.display()
            )
        })?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} is damaged; delete it and run `cargo xtask setup`",
                path.display()
            )
        })
    }

    fn check(&self) -> Result<()> {
        for binary in [
            self.nats_server.clone(),
            self.postgres_bin.join("postgres"),
            self.postgres_bin.join("initdb"),
        ] {
            ensure!(
                binary.is_file(),
                "{} is missing; run `cargo xtask setup`",
                binary.display()
            );
        }
        Ok(())
    }

    /// Variables with which another checkout finds the same servers.
    pub fn env(&self) -> BTreeMap<String, String> {
        let places = [
            (NATS_VARIABLE, &self.nats_server),
            (POSTGRES_VARIABLE, &self.postgres_bin),
        ];
        let places = places.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        places.into_iter().chain(self.postgres_env()).collect()
    }

    /// The environment Postgres programs need.
    pub fn postgres_env(&self) -> BTreeMap<String, String> {
        self.postgres_lib
            .iter()
            .map(|lib| ("LD_LIBRARY_PATH".to_owned(), lib.display().to_string()))
            .collect()
    }
}

/// The root of the checkout this harness was compiled from.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the harness lives two levels below the root")
        .to_owned()
}

/// The workspace's binary of this name, from the build directory of the running program.
///
/// # Errors
/// Names the missing binary and the command that builds it.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let mut dir = own.parent().context("the program has no directory")?;
    if dir.ends_with("deps") {
        dir = dir.parent().context("`deps` has no parent")?;
    }
    let path = dir.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing; run `cargo build --workspace --bins` (or `cargo xtask test`, which does)",
            path.display()
        );
    }
    Ok(path)
}
