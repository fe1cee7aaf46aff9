//! The instance name of a process.

/// A name that is unique to this process start, in characters that are legal in every name on a network.
pub(super) fn unique_instance(configured: Option<&str>) -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let base = configured.map_or_else(machine_name, ToOwned::to_owned);
    // The standard library seeds this from the operating system's random source.
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{base}-{random:016x}")
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    if name.is_empty() {
        "machine".to_owned()
    } else {
        name
    }
}
