//! Servers that are on the machine already.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Overrides the nats-server binary; the test harness reads the same variable.
const NATS_VARIABLE: &str = "NIXFLEET_NATS_SERVER";

/// Overrides the directory of the Postgres programs; the test harness reads the same variable.
const POSTGRES_VARIABLE: &str = "NIXFLEET_POSTGRES_BIN";

/// Directory of the major versions on Debian and its derivatives.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// A Postgres installation.
#[derive(Debug)]
pub struct Postgres {
    /// Directory of its programs.
    pub bin: PathBuf,
    /// Library directory of an installation that is not on the system's path.
    pub lib: Option<PathBuf>,
}

/// The nats-server of the variable, or one on the path that is new enough.
pub fn nats(oldest: (u32, u32)) -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os(NATS_VARIABLE).map(PathBuf::from) {
        require(&path, oldest).with_context(|| format!("{NATS_VARIABLE} is set"))?;
        return Ok(Some(path));
    }
    Ok(find_on_path("nats-server").filter(|path| is_usable(path, oldest)))
}

/// The Postgres of the variable, or an installed one that is new enough.
pub fn postgres(oldest: (u32, u32)) -> Result<Option<Postgres>> {
    let found = |bin| Some(Postgres { bin, lib: None });
    if let Some(bin) = std::env::var_os(POSTGRES_VARIABLE).map(PathBuf::from) {
        require(&bin.join("postgres"), oldest)
            .with_context(|| format!("{POSTGRES_VARIABLE} is set"))?;
        return Ok(found(bin));
    }
    Ok(postgres_dirs()
        .into_iter()
        .find(|bin| bin.join("initdb").is_file() && is_usable(&bin.join("postgres"), oldest))
        .and_then(found))
}

fn postgres_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(DEBIAN_POSTGRES)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    dirs.sort();
    dirs.reverse();
    dirs.extend(find_on_path("postgres").and_then(|path| Some(path.parent()?.to_owned())));
    dirs
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

fn is_usable(program: &Path, oldest: (u32, u32)) -> bool {
    if !program.is_file() {
        return false;
    }
    match require(program, oldest) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("xtask: not using {}: {error:#}", program.display());
            false
        }
    }
}

fn require(program: &Path, oldest: (u32, u32)) -> Result<()> {
    let text = run_version(program, None)?;
    let version = parse_version(&text).with_context(|| format!("no version in {text:?}"))?;
    ensure!(
        version >= oldest,
        "{text} is older than {}.{}",
        oldest.0,
        oldest.1
    );
    eprintln!("xtask: {text}, {}", program.display());
    Ok(())
}

/// Output of a program for `--version`.
pub fn run_version(program: &Path, lib: Option<&Path>) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    if let Some(lib) = lib {
        command.env("LD_LIBRARY_PATH", lib);
    }
    let output = command
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} --version ended with {}: {}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first `major.minor` or `major` of a text such as `nats-server: v2.15.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some((major, minor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_from_the_output_of_the_servers() {
        for (text, expected) in [
            ("nats-server: v2.15.1", Some((2, 15))),
            ("postgres (PostgreSQL) 17.10", Some((17, 10))),
            (
                "postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)",
                Some((15, 8)),
            ),
            ("postgres (PostgreSQL) 18beta1", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }
}
