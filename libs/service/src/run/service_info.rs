//! Static description of a service, and the names derived from it.

/// Static description of a service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceInfo {
    /// One lower-case word; names the environment variables and the binary `nixfleet-<name>`.
    pub name: &'static str,
    /// Version of the build, usually `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
}

impl ServiceInfo {
    /// Prefix of the environment variables: `NIXFLEET_<NAME>__`.
    pub fn env_prefix(&self) -> String {
        format!("{}__", self.env_stem())
    }

    pub(super) fn env_stem(&self) -> String {
        format!("NIXFLEET_{}", self.name.to_ascii_uppercase())
    }
}
