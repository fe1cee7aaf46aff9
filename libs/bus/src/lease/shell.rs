//! Leases for services; one task per service and process does the work.

mod bucket;
mod lease;
mod lease_task;
mod listing;
mod membership;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::lease::Request;
use self::lease_task::{LeaseTask, TaskChannels};
use crate::Bus;

pub use self::lease::Lease;
pub use self::listing::RecordView;
pub use self::membership::Membership;

/// The leases of one service for one instance. Clones are the same member.
#[derive(Clone)]
pub struct Leases {
    keys: Arc<[String]>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Leases {
    /// Waits until the key is assigned to this instance and free, and acquires it: at once when its holder
    /// releases it, within the time to live when its holder died. Failures of the bus are retried. Never
    /// completes once the process stops.
    ///
    /// Dropping the future cancels the wait.
    ///
    /// # Panics
    /// When the key is not one of the keys of these leases.
    pub async fn acquire(&self, key: &str) -> Lease {
        let is_known = self.keys.iter().any(|known| known == key);
        assert!(is_known, "{key} is not a key of these leases");
        let (sender, taken) = oneshot::channel();
        let want = Request::Want {
            key: key.to_owned(),
            sender,
        };
        if self.requests.send(want).is_ok() {
            let _cancel = CancelWant {
                key,
                requests: &self.requests,
            };
            if let Ok(lease) = taken.await {
                return lease;
            }
        }
        // The process stops: no key is acquired any more.
        std::future::pending().await
    }
}

/// Cancels the wait when the waiting future is dropped.
struct CancelWant<'a> {
    key: &'a str,
    requests: &'a mpsc::UnboundedSender<Request>,
}

impl Drop for CancelWant<'_> {
    fn drop(&mut self) {
        let key = self.key.to_owned();
        if self.requests.send(Request::CancelWant { key }).is_err() {
            tracing::trace!(key = self.key, "the leases have ended");
        }
    }
}

pub(crate) fn join(bus: Bus, member: Membership<'_>, stop: CancellationToken) -> Leases {
    let (requests, received) = mpsc::unbounded_channel();
    let tracker = bus.tracker().clone();
    let channels = TaskChannels {
        sender: requests.clone(),
        requests: received,
        stop,
    };
    tracker.spawn(LeaseTask::new(bus, member, channels).run());
    Leases {
        keys: member.keys.into(),
        requests,
    }
}
