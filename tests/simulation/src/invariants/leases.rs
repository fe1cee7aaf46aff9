//! A lease has one holder: at no instant do two processes hold the same key.
//!
//! Not asked while the bucket's data is newly gone: its leases are then given out again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fact::Found;
use crate::engine::Time;
use crate::world::status::Service;

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

    /// Looks at the holders of the keys of a service.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(
        &self,
        now: Time,
        service: Service,
        holders: &BTreeMap<String, Vec<String>>,
    ) -> Found {
        if now < self.sure_from {
            return Ok(());
        }
        match holders.iter().find(|(_, holders)| holders.len() > 1) {
            Some((key, holders)) => Err(format!(
                "{} all hold {key} of {}",
                holders.join(" and "),
                service.name()
            )),
            None => Ok(()),
        }
    }
}
