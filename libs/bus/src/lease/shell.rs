//! Leases as services see them; one task per service and process does the work.

mod bucket;
mod roll;
mod steward;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::steward::{End, Request, Steward, Wires};
use super::LeaseConfig;
use crate::Bus;

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

/// A key that is held. Dropping it gives it back.
pub struct Lease {
    key: String,
    /// Tells this holding of the key from earlier and later ones.
    number: u64,
    lost: CancellationToken,
    recalled: CancellationToken,
    done: CancellationToken,
    requests: mpsc::UnboundedSender<Request>,
}

impl Lease {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// True until the lease is lost.
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Completes when the lease is lost: another holder was seen, or it could not be renewed in
    /// time. Work under it must stop then.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// The same as a token, for the parts of the work.
    pub fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Completes when the lease is asked back, because it is the share of another instance now or
    /// the process stops. It is still held and renewed: work under it ends in good order, then the
    /// lease is released. A lease that is lost counts as asked back.
    pub async fn recalled(&self) {
        tokio::select! {
            () = self.recalled.cancelled() => {}
            () = self.lost.cancelled() => {}
        }
    }

    /// Names the epoch of the work under the lease, for people who look at the cluster.
    pub fn set_epoch(&self, epoch: u64) {
        let (key, number) = (self.key.clone(), self.number);
        self.send(Request::Epoch { key, number, epoch });
    }

    /// Gives the key back, so that the next holder takes it at once.
    pub async fn release(self) {
        self.end(End::Done);
        self.done.cancelled().await;
    }

    /// Gives the key back because the work under it failed here: other instances go first for some
    /// time, longer after every failure in a row. Without others this instance may take it at once.
    pub async fn give_up(self) {
        self.end(End::Failed);
        self.done.cancelled().await;
    }

    fn end(&self, end: End) {
        let (key, number) = (self.key.clone(), self.number);
        self.send(Request::Release { key, number, end });
    }

    fn send(&self, request: Request) {
        if self.requests.send(request).is_err() {
            tracing::trace!(key = self.key, "the leases have ended");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // After a release this is about a holding that is no more.
        self.end(End::Done);
    }
}

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
