//! Queue of manifests, read one after the other: each fleet is held in memory as text and as a tree
//! while it is parsed, and a release may announce many.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nixfleet_proto::ManifestHash;
use tokio::sync::{Notify, oneshot};

/// Requested manifests that are not taken yet; `T` is the content read from a manifest.
#[derive(Debug)]
pub struct PrefetchQueue<T> {
    state: Mutex<State<T>>,
    filled: Notify,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    requested: BTreeMap<ManifestHash, oneshot::Receiver<T>>,
}

/// A queued manifest. When it is dropped, its receiver learns that it was not read.
#[derive(Debug)]
struct Waiting<T> {
    hash: ManifestHash,
    answer: oneshot::Sender<T>,
}

impl<T> Default for PrefetchQueue<T> {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }
}

impl<T> PrefetchQueue<T> {
    /// Replaces the requested manifests. The one that is being read is read to its end.
    pub fn replace(&self, hashes: Vec<ManifestHash>) {
        let mut state = self.state();
        *state = State::default();
        for hash in hashes {
            let (answer, requested) = oneshot::channel();
            state.requested.insert(hash.clone(), requested);
            state.waiting.push_back(Waiting { hash, answer });
        }
        self.filled.notify_one();
    }

    /// The content of this hash, which is read next. `None` when it was not requested or read.
    pub async fn take(&self, hash: &ManifestHash) -> Option<T> {
        let requested = {
            let mut state = self.state();
            let requested = state.requested.remove(hash)?;
            let index = state.waiting.iter().position(|next| next.hash == *hash);
            if let Some(first) = index.and_then(|index| state.waiting.remove(index)) {
                state.waiting.push_front(first);
            }
            requested
        };
        requested.await.ok()
    }

    /// Reads requested manifests until dropped; then no receiver waits any more.
    pub async fn work<R: Future<Output = Option<T>>>(&self, read: impl Fn(ManifestHash) -> R) {
        let _clear = ClearOnDrop(self);
        loop {
            let next = self.state().waiting.pop_front();
            let Some(Waiting { hash, answer }) = next else {
                self.filled.notified().await;
                continue;
            };
            if let Some(read) = read(hash).await {
                // The receiver may be gone.
                drop(answer.send(read));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A panic elsewhere loses prefetched content at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            requested: BTreeMap::new(),
        }
    }
}

struct ClearOnDrop<'a, T>(&'a PrefetchQueue<T>);

impl<T> Drop for ClearOnDrop<'_, T> {
    fn drop(&mut self) {
        *self.0.state() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::task::yield_now;

    use super::*;

    fn hash(text: &str) -> ManifestHash {
        text.into()
    }

    #[tokio::test]
    async fn manifests_are_read_one_at_a_time_and_awaited_ones_first() {
        let queue = PrefetchQueue::default();
        queue.replace(vec![hash("a"), hash("b"), hash("c")]);
        let (reading, order) = (Cell::new(false), RefCell::new(Vec::new()));
        let (busy, read_so_far) = (&reading, &order);
        let read = |hash: ManifestHash| async move {
            assert!(!busy.replace(true), "two are read at a time");
            yield_now().await;
            yield_now().await;
            busy.set(false);
            read_so_far.borrow_mut().push(hash.clone());
            Some(hash.to_string())
        };
        let take = async || {
            let last = queue.take(&hash("c")).await;
            let (a, b) = (hash("a"), hash("b"));
            let others = tokio::join!(queue.take(&a), queue.take(&b));
            [last, others.0, others.1].map(Option::unwrap)
        };
        let taken = tokio::select! {
            biased;
            taken = take() => taken,
            () = queue.work(read) => unreachable!("it works until it is dropped"),
        };
        assert_eq!(taken, ["c", "a", "b"]);
        assert_eq!(*order.borrow(), ["c", "a", "b"].map(hash));
        assert_eq!(queue.take(&hash("a")).await, None);
    }

    #[tokio::test]
    async fn a_manifest_that_is_unreadable_or_replaced_gives_none() {
        let queue = PrefetchQueue::<()>::default();
        let unreadable = async |_: ManifestHash| None;
        let a = hash("a");
        queue.replace(vec![a.clone()]);
        let taken = tokio::select! {
            taken = queue.take(&a) => taken,
            () = queue.work(unreadable) => unreachable!("it works until it is dropped"),
        };
        assert_eq!(taken, None);
        queue.replace(vec![hash("a")]);
        queue.replace(vec![hash("b")]);
        assert_eq!(queue.take(&hash("a")).await, None);
    }

    #[tokio::test]
    async fn no_receiver_waits_after_the_worker_is_dropped() {
        let queue = PrefetchQueue::<()>::default();
        queue.replace(vec![hash("a"), hash("b")]);
        let hangs = async |_: ManifestHash| std::future::pending().await;
        let wait = async || {
            let (a, b) = (hash("a"), hash("b"));
            tokio::join!(queue.take(&a), queue.take(&b))
        };
        let stopped = async {
            tokio::select! {
                biased;
                () = queue.work(hangs) => unreachable!("it works until it is dropped"),
                () = yield_now() => {}
            }
        };
        assert_eq!(tokio::join!(wait(), stopped).0, (None, None));
    }
}
