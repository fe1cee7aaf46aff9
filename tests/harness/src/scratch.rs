//! A scratch directory per program, removed when the program ends.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, ensure};

use crate::watchdog;

/// Keeps the scratch directory when set, for looking at logs.
pub const KEEP_VARIABLE: &str = "NIXFLEET_KEEP";

/// The program's scratch directory.
///
/// Mode 0755, because Postgres runs as another user when this process runs as root.
///
/// # Errors
/// When it cannot be created.
pub fn base() -> Result<&'static Path> {
    static BASE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BASE.get_or_init(|| make().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

/// A new directory below the base, named after what it is for.
///
/// # Errors
/// When it cannot be created.
pub fn dir(name: &str) -> Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let path = base()?.join(format!("{number:03}-{name}"));
    std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn make() -> Result<PathBuf> {
    let path = tempfile::Builder::new()
        .prefix("nixfleet-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .context("making a scratch directory")?
        .keep();
    if std::env::var_os(KEEP_VARIABLE).is_none() {
        watchdog::remove_at_end(&path)?;
    } else {
        eprintln!("{KEEP_VARIABLE} is set: {} stays", path.display());
    }
    Ok(path)
}

/// Bytes on disk of all files below a directory; files may appear and disappear during the call.
///
/// # Errors
/// When a directory cannot be read.
pub fn bytes_on_disk(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        let entries = match std::fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(format!("reading {}", next.display())),
        };
        for entry in entries.filter_map(Result::ok) {
            match entry.metadata() {
                Ok(found) if found.is_dir() => waiting.push(entry.path()),
                // Blocks have 512 bytes on every file system.
                Ok(found) => bytes += found.blocks() * 512,
                // The file has been removed.
                Err(_) => {}
            }
        }
    }
    Ok(bytes)
}

/// Copies a directory with owners and modes over an existing one.
///
/// # Errors
/// When it cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to).with_context(|| format!("removing {}", to.display()))?;
    }
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .context("starting cp")?;
    ensure!(
        status.success(),
        "cp {} ended with {status}",
        from.display()
    );
    Ok(())
}
