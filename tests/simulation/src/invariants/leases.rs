//! A lease has one holder: at no instant do two processes hold the same key.
//!
//! Not checked shortly after the bucket lost its data: leases are then acquired again.

use std::time::Duration;

use super::folded_entry::CheckResult;
use crate::addressing::Service;
use crate::engine::Time;

/// Longest time until holders notice that the bucket lost its data: the time to live, and a margin.
const NOTICE_TIME: Duration = Duration::from_secs(18);

/// Holders of leases.
#[derive(Debug, Default)]
pub struct OneHolder {
    checked_from: Time,
}

impl OneHolder {
    /// The bucket lost its data.
    pub fn bucket_lost(&mut self, now: Time) {
        self.checked_from = now + NOTICE_TIME;
    }

    /// Checks the holders of a key of a service.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(
        &self,
        now: Time,
        service: Service,
        (key, holders): (&str, &[String]),
    ) -> CheckResult {
        if now < self.checked_from || holders.len() < 2 {
            return Ok(());
        }
        let holders = holders.join(" and ");
        Err(format!("{holders} all hold {key} of {}", service.name()))
    }
}
