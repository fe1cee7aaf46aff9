//! The user that Postgres runs as.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The user and group (`nobody`) that Postgres runs as when this process is root.
const NOBODY: (u32, u32) = (65_534, 65_534);

/// User and group for Postgres when this process is root, as which Postgres refuses to run.
pub(super) fn unprivileged() -> Result<Option<(u32, u32)>> {
    let own = std::fs::metadata("/proc/self").context("reading the user id")?;
    Ok((own.uid() == 0).then_some(NOBODY))
}

pub(super) fn check_reachable(program: &Path) -> Result<()> {
    let blocked = program.ancestors().skip(1).find(|dir| {
        dir.metadata()
            .is_ok_and(|metadata| metadata.mode() & 0o001 == 0)
    });
    if let Some(dir) = blocked {
        bail!(
            "Postgres does not run as root, and the unprivileged user cannot enter {}; run \
             `cargo xtask setup`, which puts a copy where it can",
            dir.display()
        );
    }
    Ok(())
}
