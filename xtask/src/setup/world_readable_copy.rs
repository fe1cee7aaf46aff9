//! Copies the Postgres installation to a directory where an unprivileged user can run it.
//!
//! Postgres refuses to run as root. Tests of root run it as `nobody`, who cannot enter a checkout below a
//! private directory, so root gets a copy elsewhere, named after its checksum.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Parents for the copy, best first; the second serves when the first is read-only.
const PARENTS: [&str; 2] = ["/var/lib", "/tmp"];

/// Written last into the copy.
const COMPLETE: &str = ".complete";

/// `install` itself, or a copy of it that every user may run.
pub fn world_readable_copy(install: &Path, sha256: &str) -> Result<PathBuf> {
    let is_root = std::fs::metadata("/proc/self")?.uid() == 0;
    if !is_root || is_open_to_all(install) {
        return Ok(install.to_owned());
    }
    let mut last = None;
    for parent in PARENTS.map(Path::new) {
        let copy = parent.join(format!("nixfleet-dev-postgres-{}", &sha256[..16]));
        match make_copy(install, &copy) {
            Ok(()) => return Ok(copy),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is a parent to try")).with_context(|| {
        format!(
            "the unprivileged user cannot enter {} and no copy could be made",
            install.display()
        )
    })
}

fn is_open_to_all(dir: &Path) -> bool {
    dir.ancestors().all(|ancestor| {
        ancestor
            .metadata()
            .is_ok_and(|metadata| metadata.mode() & 0o005 == 0o005)
    })
}

fn make_copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        // In a world-writable directory another user may have created the name.
        let metadata = to.symlink_metadata()?;
        if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            bail!("{} exists and is not a directory of root's", to.display());
        }
        if to.join(COMPLETE).is_file() {
            return Ok(());
        }
        std::fs::remove_dir_all(to)?;
    }
    let work = to.with_extension(format!("work-{}", std::process::id()));
    copy_dir(from, &work)?;
    std::fs::write(work.join(COMPLETE), "")?;
    std::fs::rename(&work, to).with_context(|| format!("making {}", to.display()))?;
    eprintln!("xtask: root's Postgres is copied to {}", to.display());
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| format!("making {}", to.display()))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)
                .with_context(|| format!("copying {}", entry.path().display()))?;
            let mode = std::fs::metadata(&target)?.permissions().mode();
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode | 0o044))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_parent_makes_a_directory_inaccessible() {
        let base = std::env::temp_dir().join(format!("nixfleet-reach-{}", std::process::id()));
        let inner = base.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_open_to_all(&inner));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
