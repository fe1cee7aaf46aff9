//! Leases as services see them; one task per service and process does the work.

mod bucket;
mod lease;
mod membership;
mod roll;
mod steward;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::lease::Request;
use self::steward::{Steward, Wires};
use crate::Bus;

pub use self::lease::Lease;
pub use self::membership::Membership;
pub use self::roll::RecordView;

/// The leases of one service, taken in the name of one instance. Clones are the same member.
#[derive(Clone)]
pub struct Leases {
    keys: Arc<[String]>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Leases {
    /// Waits until the key is part of this instance's share and free, and takes it: at once when
    /// its holder gives it back, within the time to live when its holder died. Failures of the bus
    /// are waited out. Never completes once the process stops.
    ///
    /// Dropping the future stands back.
    ///
    /// # Panics
    /// When the key is not one of those the leases were made for.
    pub async fn acquire(&self, key: &str) -> Lease {
        let is_known = self.keys.iter().any(|known| known == key);
        assert!(is_known, "{key} is not a key of these leases");
        let (sender, taken) = oneshot::channel();
        let want = Request::Want {
            key: key.to_owned(),
            sender,
        };
        if self.requests.send(want).is_ok() {
            let _standing = StandBack {
                key,
                requests: &self.requests,
            };
            if let Ok(lease) = taken.await {
                return lease;
            }
        }
        // The process stops: nothing is taken any more.
        std::future::pending().await
    }
}

/// Says so when the one who waits is gone.
struct StandBack<'a> {
    key: &'a str,
    requests: &'a mpsc::UnboundedSender<Request>,
}

impl Drop for StandBack<'_> {
    fn drop(&mut self) {
        let key = self.key.to_owned();
        if self.requests.send(Request::StandBack { key }).is_err() {
            tracing::trace!(key = self.key, "the leases have ended");
        }
    }
}

/// Starts the task behind the leases of a service.
pub(crate) fn join(bus: Bus, member: Membership<'_>, stop: CancellationToken) -> Leases {
    let (requests, received) = mpsc::unbounded_channel();
    let tracker = bus.tracker().clone();
    let wires = Wires {
        sender: requests.clone(),
        requests: received,
        stop,
    };
    tracker.spawn(Steward::new(bus, member, wires).run());
    Leases {
        keys: member.keys.into(),
        requests,
    }
}
