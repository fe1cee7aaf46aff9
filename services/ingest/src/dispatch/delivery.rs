//! Delivery of queued dispatches to waiting requests: the queue follows the output logs, long-polls ask it.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixfleet_proto::Hostname;
use nixfleet_proto::effects_frame::OutcomeEffects;
use nixfleet_proto::subject::Partition;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::queue::{DispatchQueue, Offer, QueuedDispatch};

/// The dispatch queue and the requests that wait for it.
#[derive(Debug, Default)]
pub struct DispatchDelivery {
    queue: Mutex<DispatchQueue>,
    waiting: Mutex<HashMap<Hostname, Waiter>>,
    /// Partitions that were never loaded; `None` before the first word about them.
    missing: Mutex<Option<BTreeSet<Partition>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    wake: Arc<Notify>,
    /// Requests of this host that wait now; usually one.
    requests: usize,
}

impl DispatchDelivery {
    /// Nothing is known of any of these partitions.
    pub fn expect(&self, partitions: impl Iterator<Item = Partition>) {
        *lock(&self.missing) = Some(partitions.collect());
    }

    /// True when every partition was loaded once, so that "nothing is queued" can be believed.
    pub fn is_loaded(&self) -> bool {
        lock(&self.missing).as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Replaces what is known of a partition, and wakes everyone: most find nothing.
    pub fn load(&self, partition: Partition, rows: Vec<QueuedDispatch>) {
        let size = {
            let mut queue = lock(&self.queue);
            queue.load(partition, rows, Instant::now());
            queue.len()
        };
        gauge(size);
        if let Some(missing) = lock(&self.missing).as_mut() {
            missing.remove(&partition);
        }
        for waiter in lock(&self.waiting).values() {
            waiter.wake.notify_waiters();
        }
    }

    /// Follows outcomes of a partition and wakes the hosts they are for.
    pub fn follow(&self, partition: Partition, outcomes: &[OutcomeEffects]) {
        let (wake, size) = {
            let mut queue = lock(&self.queue);
            let now = Instant::now();
            let wake: Vec<Hostname> = outcomes
                .iter()
                .flat_map(|outcome| queue.follow(partition, outcome, now))
                .collect();
            (wake, queue.len())
        };
        gauge(size);
        let waiting = lock(&self.waiting);
        for hostname in &wake {
            if let Some(waiter) = waiting.get(hostname) {
                waiter.wake.notify_waiters();
            }
        }
    }

    /// Waits until `deadline` for something `hostname` may fetch.
    pub async fn next(&self, hostname: &Hostname, deadline: Instant) -> Option<QueuedDispatch> {
        let waiting = self.wait(hostname);
        loop {
            // Listening begins before the queue is read, so nothing falls in between.
            let woken = waiting.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let until = match lock(&self.queue).fetch(hostname, Instant::now()) {
                Offer::Now(dispatch) => return Some(dispatch),
                Offer::At(due) => due.min(deadline),
                Offer::Nothing => deadline,
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(until) => {
                    if until == deadline {
                        return None;
                    }
                }
            }
        }
    }

    fn wait(&self, hostname: &Hostname) -> WaitingRequest<'_> {
        let mut waiting = lock(&self.waiting);
        let waiter = waiting.entry(hostname.clone()).or_default();
        waiter.requests += 1;
        metrics::gauge!("nixfleet_dispatch_polls_open").increment(1.0);
        WaitingRequest {
            dispatches: self,
            hostname: hostname.clone(),
            wake: Arc::clone(&waiter.wake),
        }
    }
}

/// One waiting request; dropping it forgets the request, also when the client went away.
struct WaitingRequest<'d> {
    dispatches: &'d DispatchDelivery,
    hostname: Hostname,
    wake: Arc<Notify>,
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        metrics::gauge!("nixfleet_dispatch_polls_open").decrement(1.0);
        let mut waiting = lock(&self.dispatches.waiting);
        if let Slot::Occupied(mut slot) = waiting.entry(self.hostname.clone()) {
            slot.get_mut().requests -= 1;
            if slot.get().requests == 0 {
                slot.remove();
            }
        }
    }
}

fn gauge(size: usize) {
    metrics::gauge!("nixfleet_dispatches_queued").set(size as f64);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic can happen half-way through a change of these maps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nixfleet_proto::Minutes;

    use super::*;

    fn row(host: &str) -> QueuedDispatch {
        QueuedDispatch {
            rollout_id: "stable@1".parse().unwrap(),
            hostname: host.parse().unwrap(),
            target_closure: "closure".into(),
            soak_minutes: Minutes::from_minutes(5),
            enqueued_at: nixfleet_proto::Timestamp::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    fn deadline(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_host_is_woken_by_its_dispatch() {
        let dispatches = Arc::new(DispatchDelivery::default());
        let waits = {
            let dispatches = Arc::clone(&dispatches);
            tokio::spawn(async move { dispatches.next(&"a".into(), deadline(60)).await })
        };
        tokio::task::yield_now().await;
        dispatches.load(Partition::new(0), vec![row("a")]);
        assert_eq!(waits.await.unwrap(), Some(row("a")));
        assert!(
            lock(&dispatches.waiting).is_empty(),
            "the request is forgotten"
        );
    }

    #[test]
    fn the_queue_is_loaded_when_every_partition_is() {
        let dispatches = DispatchDelivery::default();
        assert!(!dispatches.is_loaded());
        dispatches.expect(Partition::all(2));
        dispatches.load(Partition::new(0), Vec::new());
        assert!(!dispatches.is_loaded());
        dispatches.load(Partition::new(1), Vec::new());
        assert!(dispatches.is_loaded());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_queue_answers_at_the_deadline() {
        let dispatches = DispatchDelivery::default();
        let start = Instant::now();
        assert_eq!(dispatches.next(&"a".into(), deadline(30)).await, None);
        assert_eq!(start.elapsed().as_secs(), 30);
        assert_eq!(dispatches.next(&"a".into(), Instant::now()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_comes_again_within_a_poll_that_outlasts_its_pause() {
        let dispatches = DispatchDelivery::default();
        dispatches.load(Partition::new(0), vec![row("a")]);
        assert!(dispatches.next(&"a".into(), deadline(1)).await.is_some());
        assert_eq!(dispatches.next(&"a".into(), deadline(30)).await, None);
        let start = Instant::now();
        assert!(dispatches.next(&"a".into(), deadline(60)).await.is_some());
        assert_eq!(start.elapsed().as_secs(), 30);
    }
}
