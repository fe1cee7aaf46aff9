//! Leases keep two workers from doing the same work. They are never what makes the work correct:
//! every log has its own fence.
//!
//! Members of a service and the keys they hold are records with a time to live in one bucket,
//! renewed by their writers. Every member sees the same bucket and works out the same assignment
//! ([`assign`]); it takes the keys of its share that are free and hands over what is not its share.
//! A holder counts its own time on the monotonic clock and stops two seconds before the server
//! would give the key away.
//!
//! All of that is [`LeaseCore`], a plain value without clock, socket or task. Start reading there,
//! then at `key_machine.rs` (one key) and `assignment.rs` (the shares).

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

/// How long before its expiry a holder stops: more than the pauses of a loaded machine.
const EXPIRY_MARGIN: Duration = Duration::from_secs(2);
/// Pause after a write or look that nobody answered.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// Longest time giving back may take; afterwards the time to live does it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// A worker may take this long between two turns before others are told to take its key.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// A watch that shows nothing of what is there for this long is opened anew.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an instance stands behind others after the first failure under a key.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
/// The longest it stands behind.
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// More failures in a row make it no longer.
const FAILURES_MAX: u32 = 10;
/// Work that lasted this long has not failed in a row.
const STEADY_WORK: Duration = Duration::from_secs(60);

/// Section `lease` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// A lease whose holder died is free after this time; whole seconds, as the server counts them.
    pub ttl_seconds: u64,
    /// How often the holder renews: two renewals may fail before it has to stop.
    pub renew_seconds: u64,
    /// Longest time work may take to end after its lease was asked back, because another instance
    /// shall have it or the process stops.
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
    /// Everything that is wrong with the values.
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

/// The times a [`LeaseCore`] works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time to live of every record.
    pub ttl: Duration,
    /// How often records are renewed.
    pub renew: Duration,
    /// How long before its expiry a holder stops.
    pub margin: Duration,
    /// Pause after a write or look that nobody answered.
    pub retry: Duration,
    /// Longest time giving back may take.
    pub release_timeout: Duration,
    /// Longest time work may take to end after its key was asked back.
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
    fn a_lease_leaves_room_for_a_failed_renewal() {
        assert_eq!(LeaseConfig::default().faults(), Vec::new());
        let tight = LeaseConfig {
            ttl_seconds: 5,
            renew_seconds: 3,
            hand_over_seconds: 0,
        };
        assert_eq!(tight.faults().len(), 2);
    }
}
