//! Leases prevent two workers from doing the same work. They do not make the work correct: every log has
//! its own fence.
//!
//! Members of a service and the leases they hold are records with a time to live in one bucket; their
//! writers renew them. Every member watches the same bucket and computes the same assignment ([`assign`]).
//! It acquires the free keys that are assigned to it and hands over the others. A holder measures its own
//! time on the monotonic clock and stops two seconds before the server would free the key.
//!
//! [`LeaseCore`] implements all of this as a plain value without clock, socket or task. Start reading
//! there, then at `key_machine.rs` (one key) and `assignment.rs` (the distribution of keys).

mod assignment;
mod bucket_cache;
mod core;
mod key_machine;
mod record;
#[cfg(feature = "shell")]
mod shell;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigFault;

pub use self::assignment::{Assignment, Members, assign};
pub use self::core::{Answer, Command, Identity, LeaseCore, Signal};
pub use self::key_machine::Loss;
pub use self::record::{
    Content, InstanceId, LeaseRecord, MemberRecord, Record, RecordKey, VersionedContent,
    WriteResult,
};
#[cfg(feature = "shell")]
pub use self::shell::{Lease, Leases, Membership, RecordView};

#[cfg(feature = "shell")]
pub(crate) use self::shell::join;

/// Time before its expiry at which a holder stops; longer than the pauses of a loaded machine.
const EXPIRY_MARGIN: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// Longest time for a release; afterwards the record expires by its time to live.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time a worker may take between two turns before others are told to acquire its key.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Time after which a watch that does not show existing records is opened again.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Backoff of an instance after the first failure under a key.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// Failures in a row after which the backoff no longer grows.
const FAILURES_MAX: u32 = 10;
/// Work that lasted this long resets the number of failures.
const STEADY_WORK: Duration = Duration::from_secs(60);

/// Section `lease` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// Time after which the lease of a dead holder is free; whole seconds, as the server counts them.
    pub ttl_seconds: u64,
    /// Renewal interval; two renewals may fail before the holder has to stop.
    pub renew_seconds: u64,
    /// Longest time that work may take to end after its lease was recalled, because the key was assigned to
    /// another instance or the process stops.
    pub hand_over_seconds: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            ttl_seconds: 10,
            renew_seconds: 3,
            hand_over_seconds: 20,
        }
    }
}

impl LeaseConfig {
    /// All faults of the values.
    pub fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |key, message: &str| {
            let message = message.to_owned();
            faults.push(ConfigFault { key, message });
        };
        if !(4..=3_600).contains(&self.ttl_seconds) {
            fault("ttl_seconds", "must be between 4 and 3600");
        }
        if self.renew_seconds == 0
            || self.renew_seconds + EXPIRY_MARGIN.as_secs() >= self.ttl_seconds
        {
            fault(
                "renew_seconds",
                "must be above 0 and leave more than 2 s before ttl_seconds",
            );
        }
        if !(1..=3_600).contains(&self.hand_over_seconds) {
            fault("hand_over_seconds", "must be between 1 and 3600");
        }
        faults
    }
}

/// Timing of a [`LeaseCore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time to live of every record.
    pub ttl: Duration,
    /// Renewal interval of every record.
    pub renew: Duration,
    /// Time before its expiry at which a holder stops.
    pub margin: Duration,
    /// Pause after a write or read without an answer.
    pub retry: Duration,
    /// Longest time for a release.
    pub release_timeout: Duration,
    /// Longest time that work may take to end after its key was recalled.
    pub hand_over: Duration,
}

impl From<LeaseConfig> for Timing {
    fn from(config: LeaseConfig) -> Self {
        Self {
            ttl: Duration::from_secs(config.ttl_seconds),
            renew: Duration::from_secs(config.renew_seconds),
            margin: EXPIRY_MARGIN,
            retry: RETRY_PAUSE,
            release_timeout: RELEASE_TIMEOUT,
            hand_over: Duration::from_secs(config.hand_over_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlasts_one_failed_renewal() {
        assert_eq!(LeaseConfig::default().faults(), Vec::new());
        let tight = LeaseConfig {
            ttl_seconds: 5,
            renew_seconds: 3,
            hand_over_seconds: 0,
        };
        assert_eq!(tight.faults().len(), 2);
    }
}
