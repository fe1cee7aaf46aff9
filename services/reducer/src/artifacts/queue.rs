//! Manifests that wait to be read, read one after the other: the fleet of each is held in memory as
//! text and as a tree while it is parsed, and a release may announce many.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nixfleet_proto::ManifestHash;
use tokio::sync::{Notify, oneshot};

/// What was asked for and is not taken yet; `T` is what reading a manifest gives.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    /// Something waits.
    filled: Notify,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    asked: BTreeMap<ManifestHash, oneshot::Receiver<T>>,
}

/// Dropped without an answer, whoever takes it learns that it was not read.
#[derive(Debug)]
struct Waiting<T> {
    hash: ManifestHash,
    answer: oneshot::Sender<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }
}

impl<T> Queue<T> {
    /// Asks for these and no others; what is being read is read to its end.
    pub fn replace(&self, hashes: Vec<ManifestHash>) {
        let mut state = self.state();
        *state = State::default();
        for hash in hashes {
            let (answer, asked) = oneshot::channel();
            state.asked.insert(hash.clone(), asked);
            state.waiting.push_back(Waiting { hash, answer });
        }
        self.filled.notify_one();
    }

    /// What was read under this hash. Someone waits for it now, so that it is the next to be read.
    /// `None` when nobody asked for it, or it was not read.
    pub async fn take(&self, hash: &ManifestHash) -> Option<T> {
        let asked = {
            let mut state = self.state();
            let asked = state.asked.remove(hash)?;
            let place = state.waiting.iter().position(|next| next.hash == *hash);
            if let Some(first) = place.and_then(|place| state.waiting.remove(place)) {
                state.waiting.push_front(first);
            }
            asked
        };
        asked.await.ok()
    }

    /// Reads what is asked for, until dropped; nobody waits then any more.
    pub async fn work<R: Future<Output = Option<T>>>(&self, read: impl Fn(ManifestHash) -> R) {
        let _closing = Closing(self);
        loop {
            let next = self.state().waiting.pop_front();
            let Some(Waiting { hash, answer }) = next else {
                self.filled.notified().await;
                continue;
            };
            if let Some(read) = read(hash).await {
                // Nobody has to want it any more.
                drop(answer.send(read));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A panic elsewhere costs what was read ahead at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
        }
    }
}

struct Closing<'a, T>(&'a Queue<T>);

impl<T> Drop for Closing<'_, T> {
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
    async fn one_is_read_at_a_time_and_first_what_someone_waits_for() {
        let queue = Queue::default();
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
    async fn what_could_not_be_read_or_is_asked_for_no_more_is_nobodys() {
        let queue = Queue::<()>::default();
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
    async fn nobody_waits_for_a_worker_that_is_gone() {
        let queue = Queue::<()>::default();
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
