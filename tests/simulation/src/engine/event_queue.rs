//! Scheduled events, ordered by time, and by the order of scheduling at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::virtual_time::Time;

/// Scheduled events. The heap holds indexes only, so that ordering it moves little.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            scheduled: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Schedules an event.
    pub fn push(&mut self, at: Time, event: E) {
        let number = self.scheduled;
        self.scheduled += 1;
        let index = match self.free.pop() {
            Some(index) => {
                self.events[index] = Some(event);
                index
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.heap.push(Reverse((at, number, index)));
    }

    /// Takes the next event with its time.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        let Reverse((at, _, index)) = self.heap.pop()?;
        self.free.push(index);
        let event = self.events[index].take();
        Some((at, event.expect("a scheduled event is taken once")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_order_of_scheduling() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "d"), (1, "a"), (3, "b"), (3, "c")] {
            queue.push(Time::seconds(at), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|(_, name)| name)
            .collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
