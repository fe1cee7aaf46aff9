//! The compose file against the binaries' own configuration.
