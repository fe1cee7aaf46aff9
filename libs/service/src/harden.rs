//! Privileges that a process drops before it reads its first secret.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Files are writable by the owner and readable by the group, at most.
const UMASK: Mode = Mode::WGRP.union(Mode::RWXO);

/// Disables core dumps, removes file permissions for others, and prevents other processes of the same user
/// from reading the memory of this one.
pub fn harden() -> std::io::Result<()> {
    umask(UMASK);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_core_dumps_are_disabled() {
        harden().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.contains("core file"));
        let numbers: Vec<&str> = core.unwrap().split_whitespace().collect();
        assert_eq!(numbers[4..6], ["0", "0"]);
    }
}
