//! Membership in a service whose instances share keys.

use super::super::LeaseConfig;

/// An instance that joins a service.
#[derive(Debug, Clone, Copy)]
pub struct Membership<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Name of the instance, unique among the members.
    pub instance: &'a str,
    /// All keys of the service, the same list for all members.
    pub keys: &'a [String],
    /// Timing of the leases.
    pub config: LeaseConfig,
}
