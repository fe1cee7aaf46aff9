//! A held lease, and the requests of its holder to the lease task.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Requests of workers. Each worker has at most one request in flight and one for its end, so their number
/// bounds the queue.
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
    Progress {
        key: String,
        number: u64,
        epoch: u64,
        held: BTreeSet<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkEnd {
    Done,
    Failed,
}

/// A held lease. Dropping it releases the key.
pub struct Lease {
    pub(super) key: String,
    /// Tells this lease from earlier and later ones of the same key.
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

    /// Completes when the lease is lost: another holder was seen, or it was not renewed in time. The work
    /// under it must stop then.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Completes when the lease is recalled, because the key was assigned to another instance or the
    /// process stops. The lease is still held and renewed: end the work in order, then release the lease. A
    /// lost lease counts as recalled.
    pub async fn recalled(&self) {
        tokio::select! {
            () = self.recalled.cancelled() => {}
            () = self.lost.cancelled() => {}
        }
    }

    /// Publishes the epoch of the work under the lease in its record, for operators.
    pub fn set_epoch(&self, epoch: u64) {
        self.set_progress(epoch, BTreeSet::new());
    }

    /// Publishes the epoch of the work under the lease, and the parts of the work that are held, in its record,
    /// for operators.
    pub fn set_progress(&self, epoch: u64, held: BTreeSet<String>) {
        let (key, number) = (self.key.clone(), self.number);
        self.send(Request::Progress {
            key,
            number,
            epoch,
            held,
        });
    }

    /// Releases the key, so that the next holder can acquire it at once.
    pub async fn release(self) {
        self.end(WorkEnd::Done);
        self.done.cancelled().await;
    }

    /// Releases the key after the work under it failed here. Other instances go first for a backoff that
    /// grows with every failure in a row; without other instances this one may acquire it at once.
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
        // After a release this request refers to a lease that has ended, and is ignored.
        self.end(WorkEnd::Done);
    }
}
