//! A key that is held, and what its holder asks of the task behind the leases.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What workers ask for. Each worker has one request about a key on its way at most, and one for
/// its end, so the queue is bounded by their number.
pub(super) enum Request {
    Want {
        key: String,
        sender: oneshot::Sender<Lease>,
    },
    CancelWant {
        key: String,
    },
    Release {
        key: String,
        number: u64,
        end: WorkEnd,
    },
    Epoch {
        key: String,
        number: u64,
        epoch: u64,
    },
}

/// How work under a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkEnd {
    Done,
    Failed,
}

/// A key that is held. Dropping it gives it back.
pub struct Lease {
    pub(super) key: String,
    /// Tells this machine of the key from earlier and later ones.
    pub(super) number: u64,
    pub(super) lost: CancellationToken,
    pub(super) recalled: CancellationToken,
    pub(super) done: CancellationToken,
    pub(super) requests: mpsc::UnboundedSender<Request>,
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
        self.end(WorkEnd::Done);
        self.done.cancelled().await;
    }

    /// Gives the key back because the work under it failed here: other instances go first for some
    /// time, longer after every failure in a row. Without others this instance may take it at once.
    pub async fn give_up(self) {
        self.end(WorkEnd::Failed);
        self.done.cancelled().await;
    }

    fn end(&self, end: WorkEnd) {
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
        // After a release this is about a machine that is no more.
        self.end(WorkEnd::Done);
    }
}
