//! A lease has one holder: at no instant do two processes hold the same key.
//!
//! Not asked while the bucket's data is newly gone: its leases are then given out again.

use std::time::Duration;

use super::folded_entry::CheckResult;
use crate::addressing::Service;
use crate::engine::Time;

/// Longest time until holders of a bucket that was lost have noticed: the time to live.
const UNSURE: Duration = Duration::from_secs(18);

/// When the bucket was lost last.
#[derive(Debug, Default)]
pub struct OneHolder {
    sure_from: Time,
}

impl OneHolder {
    /// The bucket's data is gone.
    pub fn bucket_lost(&mut self, now: Time) {
        self.sure_from = now + UNSURE;
    }

    /// Looks at those who hold a key of a service.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(
        &self,
        now: Time,
        service: Service,
        (key, holders): (&str, &[String]),
    ) -> CheckResult {
        if now < self.sure_from || holders.len() < 2 {
            return Ok(());
        }
        let holders = holders.join(" and ");
        Err(format!("{holders} all hold {key} of {}", service.name()))
    }
}
