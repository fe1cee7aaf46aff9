//! Files that are there in full or not at all, and secrets that only their owner reads.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::command_error::{CommandError, InputContext};

/// Permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Readable by everybody, as the umask allows.
    Public,
    /// Readable by the owner only.
    Secret,
}

/// Durability of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the command ends.
    Synced,
    /// At the discretion of the system, for bulk files that can be generated again.
    Unsynced,
}

/// Treatment of an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Replace it.
    Replace,
    /// Refuse.
    Keep,
}

/// Reads a file.
///
/// # Errors
/// Exit code 2, names the file.
pub fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    fs::read(path).or_input_error(|| format!("cannot read {}", path.display()))
}

/// Writes a file through a temporary one beside it, directories included.
///
/// # Errors
/// Exit code 2, names the file.
pub fn write(
    path: &Path,
    bytes: &[u8],
    access: Access,
    existing: Existing,
) -> Result<(), CommandError> {
    try_write(path, bytes, (access, Durability::Synced), existing)
        .or_input_error(|| format!("cannot write {}", path.display()))
}

/// [`write`] over an existing file, for files that are generated in bulk.
///
/// # Errors
/// Exit code 2, names the file.
pub fn write_without_sync(path: &Path, bytes: &[u8], access: Access) -> Result<(), CommandError> {
    try_write(
        path,
        bytes,
        (access, Durability::Unsynced),
        Existing::Replace,
    )
    .or_input_error(|| format!("cannot write {}", path.display()))
}

fn try_write(
    path: &Path,
    bytes: &[u8],
    how: (Access, Durability),
    existing: Existing,
) -> io::Result<()> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(parent)?;
    }
    let temporary = sibling_path(path, "new");
    let written = write_new(&temporary, bytes, how).and_then(|()| match existing {
        Existing::Replace => fs::rename(&temporary, path),
        // Creating a link fails if the file exists; a rename would silently replace the file of another
        // writer.
        Existing::Keep => {
            fs::hard_link(&temporary, path).and_then(|()| fs::remove_file(&temporary))
        }
    });
    if written.is_err() && temporary.exists() {
        fs::remove_file(&temporary)?;
    }
    written
}

fn write_new(
    path: &Path,
    bytes: &[u8],
    (access, durability): (Access, Durability),
) -> io::Result<()> {
    let mode = match access {
        Access::Public => 0o644,
        Access::Secret => 0o600,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Synced => file.sync_all(),
        Durability::Unsynced => Ok(()),
    }
}

/// A temporary path in the same directory, unique to this process.
pub fn sibling_path(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_readable_by_their_owner_only_and_no_temporary_file_remains() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("deep/er/key");
        write(&path, b"one", Access::Secret, Existing::Keep).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let refused = write(&path, b"two", Access::Secret, Existing::Keep).unwrap_err();
        assert!(refused.to_string().contains("cannot write"), "{refused}");
        assert_eq!(read(&path).unwrap(), b"one");
        write(&path, b"two", Access::Secret, Existing::Replace).unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
