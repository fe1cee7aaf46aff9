//! What a process gives up before it reads its first secret.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Files for the owner, readable by its group at most.
const UMASK: Mode = Mode::WGRP.union(Mode::RWXO);

/// Leaves no memory behind in core dumps and no file for everybody, and lets no other process of the
/// same user look into this one.
///
/// # Errors
/// When the operating system refuses.
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
    fn files_are_not_for_everybody_and_memory_is_not_dumped() {
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
