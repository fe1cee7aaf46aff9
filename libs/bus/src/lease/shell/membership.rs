//! Joining a service whose instances share out keys.

use super::super::LeaseConfig;

/// Who joins which service.
#[derive(Debug, Clone, Copy)]
pub struct Membership<'a> {
    /// The service.
    pub service: &'a str,
    /// Name of the instance, unique among the members.
    pub instance: &'a str,
    /// Everything the members share out, the same list for all of them.
    pub keys: &'a [String],
    /// Times.
    pub config: LeaseConfig,
}
