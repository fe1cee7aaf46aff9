//! A release as a directory that others poll while it is replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nixfleet_trust::BuiltRelease;
use nixfleet_trust::release_bundle::{FLEET_FILE, SIGNATURE_SUFFIX, rollout_file, signature_file};

use crate::atomic_files::{self, Access, Existing};
use crate::command_error::{CommandError, InputContext};

/// The directory of rollout manifests inside a release.
const ROLLOUTS: &str = "rollouts";

/// Writes a release.
///
/// A new directory is created atomically. An existing one is replaced as a whole if it contains only a
/// release; otherwise, and where a directory cannot be renamed (a mount point), its files are replaced one
/// by one, the fleet last. Concurrent readers see signatures or hashes that do not match and keep their
/// previous release.
///
/// # Errors
/// Exit code 2, names the file.
pub fn write(directory: &Path, built: &BuiltRelease) -> Result<(), CommandError> {
    let context = || format!("cannot write {}", directory.display());
    if !directory.exists() {
        return stage_and_move(directory, built).or_input_error(context);
    }
    let directory = directory.canonicalize().or_input_error(context)?;
    if holds_only_a_release(&directory).or_input_error(context)?
        && exchange(&directory, built).or_input_error(context)?
    {
        return Ok(());
    }
    for (name, bytes) in contents(built) {
        atomic_files::write(
            &directory.join(name),
            bytes,
            Access::Public,
            Existing::Replace,
        )?;
    }
    remove_leftovers(&directory, built).or_input_error(context)
}

/// The files of a release, in the order in which they may be replaced one by one.
fn contents(built: &BuiltRelease) -> Vec<(String, &[u8])> {
    let mut contents: Vec<(String, &[u8])> = Vec::new();
    for (channel, rollout_id) in &built.rollouts {
        if let Some(signed) = built.bundle.rollouts.get(channel) {
            let name = rollout_file(rollout_id);
            contents.push((signature_file(&name), &signed.signature));
            contents.push((name, &signed.bytes));
        }
    }
    let fleet = &built.bundle.fleet;
    contents.push((signature_file(FLEET_FILE), &fleet.signature));
    contents.push((FLEET_FILE.to_owned(), &fleet.bytes));
    contents
}

fn stage_and_move(directory: &Path, built: &BuiltRelease) -> io::Result<()> {
    let staged = stage(directory, built)?;
    fs::rename(&staged, directory)
}

/// Writes the release into a new directory beside the real one.
fn stage(directory: &Path, built: &BuiltRelease) -> io::Result<PathBuf> {
    let staged = atomic_files::sibling_path(directory, "new");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(staged.join(ROLLOUTS))?;
    for (name, bytes) in contents(built) {
        fs::write(staged.join(name), bytes)?;
    }
    Ok(staged)
}

/// Replaces an existing directory by a staged release; false when the directory cannot be moved.
fn exchange(directory: &Path, built: &BuiltRelease) -> io::Result<bool> {
    let Ok(staged) = stage(directory, built) else {
        // The parent may be read-only although the directory is writable.
        return Ok(false);
    };
    let old = atomic_files::sibling_path(directory, "old");
    if fs::rename(directory, &old).is_err() {
        fs::remove_dir_all(&staged)?;
        return Ok(false);
    }
    if let Err(error) = fs::rename(&staged, directory) {
        // Better the old release than none.
        fs::rename(&old, directory)?;
        fs::remove_dir_all(&staged)?;
        return Err(error);
    }
    fs::remove_dir_all(&old)?;
    Ok(true)
}

/// True when the directory contains only files of a release.
fn holds_only_a_release(directory: &Path) -> io::Result<bool> {
    let top = [
        FLEET_FILE.to_owned(),
        signature_file(FLEET_FILE),
        ROLLOUTS.to_owned(),
    ];
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !top.iter().any(|known| name.to_str() == Some(known)) {
            return Ok(false);
        }
    }
    let rollouts = directory.join(ROLLOUTS);
    if !rollouts.exists() {
        return Ok(true);
    }
    for entry in fs::read_dir(rollouts)? {
        if !is_manifest(&entry?.file_name().to_string_lossy()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the manifests of earlier releases.
fn remove_leftovers(directory: &Path, built: &BuiltRelease) -> io::Result<()> {
    let current: Vec<PathBuf> = contents(built)
        .into_iter()
        .map(|(name, _)| directory.join(name))
        .collect();
    for entry in fs::read_dir(directory.join(ROLLOUTS))? {
        let entry = entry?;
        if is_manifest(&entry.file_name().to_string_lossy()) && !current.contains(&entry.path()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `<rolloutId>.json`, or the same with its signature's suffix.
fn is_manifest(name: &str) -> bool {
    name.strip_suffix(SIGNATURE_SUFFIX)
        .unwrap_or(name)
        .strip_suffix(".json")
        .is_some_and(|id| nixfleet_proto::RolloutId::parse_strict(id).is_ok())
}
