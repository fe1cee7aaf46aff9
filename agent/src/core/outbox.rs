//! Events on their way out, of one rollout: in order, one in flight, until answered.

use std::collections::VecDeque;

use nixfleet_proto::Timestamp;
use nixfleet_proto::wire::WireEvent;

/// The queue of one rollout; events are keyed by their sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    waiting: VecDeque<Outgoing>,
    in_flight: Option<u64>,
    attempts: u32,
    not_before: Option<Timestamp>,
    kept: VecDeque<WireEvent>,
}

/// One event in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The event.
    pub event: WireEvent,
    /// True when it must survive a crash.
    pub durable: bool,
}

impl Outbox {
    /// A queue that starts with events from before a restart.
    pub fn restored(events: Vec<WireEvent>) -> Self {
        Self {
            waiting: events
                .into_iter()
                .map(|event| Outgoing {
                    event,
                    durable: true,
                })
                .collect(),
            ..Self::default()
        }
    }

    /// Appends an event. Above `waiting_max`, the oldest undurable event that is not in flight is
    /// dropped and its sequence returned.
    pub fn push(&mut self, event: WireEvent, durable: bool, waiting_max: usize) -> Option<u64> {
        self.waiting.push_back(Outgoing { event, durable });
        if self.waiting.len() <= waiting_max {
            return None;
        }
        let victim = self
            .waiting
            .iter()
            .position(|item| !item.durable && self.in_flight != Some(item.event.seq))?;
        self.waiting.remove(victim).map(|item| item.event.seq)
    }

    /// The event to send now, which then is in flight.
    pub fn take_next(&mut self, now: Timestamp) -> Option<WireEvent> {
        if self.in_flight.is_some() || self.not_before.is_some_and(|due| now < due) {
            return None;
        }
        let next = self.waiting.front()?;
        self.in_flight = Some(next.event.seq);
        Some(next.event.clone())
    }

    /// Ends the flight of `seq` and takes the event out of the queue; `None` when another event or
    /// none is in flight.
    pub fn settle(&mut self, seq: u64) -> Option<Outgoing> {
        if self.in_flight != Some(seq) {
            return None;
        }
        self.in_flight = None;
        self.attempts = 0;
        self.not_before = None;
        self.waiting.pop_front()
    }

    /// Keeps an answered event for a replay, dropping the oldest above `kept_max`.
    pub fn keep(&mut self, event: WireEvent, kept_max: usize) {
        let at = self.kept.partition_point(|known| known.seq < event.seq);
        if self.kept.get(at).is_none_or(|known| known.seq != event.seq) {
            self.kept.insert(at, event);
        }
        while self.kept.len() > kept_max {
            self.kept.pop_front();
        }
    }

    /// Ends the flight of `seq` without an answer and says how often that happened in a row; `None`
    /// when it was not in flight.
    pub fn postpone(&mut self, seq: u64) -> Option<u32> {
        if self.in_flight != Some(seq) {
            return None;
        }
        self.in_flight = None;
        self.attempts = self.attempts.saturating_add(1);
        Some(self.attempts)
    }

    /// Nothing is sent before `due`.
    pub fn wait_until(&mut self, due: Timestamp) {
        self.not_before = Some(due);
    }

    /// Puts the kept events above `after` back in front of the queue.
    pub fn replay(&mut self, after: u64) {
        while let Some(event) = self.kept.pop_back() {
            if event.seq <= after {
                self.kept.push_back(event);
                return;
            }
            if self.waiting.iter().any(|item| item.event.seq == event.seq) {
                continue;
            }
            // The head may be in flight; it stays the head until it is answered.
            let at = usize::from(self.in_flight.is_some());
            self.waiting.insert(
                at,
                Outgoing {
                    event,
                    durable: true,
                },
            );
        }
    }

    /// The durable events that wait, for the journal.
    pub fn durable(&self) -> Vec<WireEvent> {
        self.waiting
            .iter()
            .filter(|item| item.durable)
            .map(|item| item.event.clone())
            .collect()
    }

    /// How many events wait, the one in flight included.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When [`Self::take_next`] will have something; `None` while an event is in flight or none
    /// waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.in_flight.is_some() || self.waiting.is_empty() {
            return None;
        }
        Some(self.not_before.unwrap_or(Timestamp::MIN_UTC))
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::HostEventBody;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn event(seq: u64) -> WireEvent {
        WireEvent {
            seq,
            body: HostEventBody::ActivationDeferred {
                component: "kernel".to_owned(),
                deferred_at: at(0),
            },
        }
    }

    #[test]
    fn one_event_is_in_flight_and_order_is_kept() {
        let mut outbox = Outbox::default();
        outbox.push(event(1), true, 10);
        outbox.push(event(2), true, 10);
        assert_eq!(outbox.take_next(at(0)).map(|e| e.seq), Some(1));
        assert_eq!(outbox.take_next(at(0)), None);
        assert_eq!(outbox.settle(2), None, "not in flight");
        assert!(outbox.settle(1).is_some());
        assert_eq!(outbox.take_next(at(0)).map(|e| e.seq), Some(2));
    }

    #[test]
    fn a_postponed_event_is_sent_again_when_due() {
        let mut outbox = Outbox::default();
        outbox.push(event(1), true, 10);
        outbox.take_next(at(0));
        assert_eq!(outbox.postpone(1), Some(1));
        outbox.wait_until(at(5));
        assert_eq!(outbox.take_next(at(4)), None);
        assert_eq!(outbox.next_due(), Some(at(5)));
        assert_eq!(outbox.take_next(at(5)).map(|e| e.seq), Some(1));
        assert_eq!(outbox.postpone(1), Some(2));
    }

    #[test]
    fn only_undurable_events_are_dropped_when_too_many_wait() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(event(1), true, 1), None);
        assert_eq!(outbox.push(event(2), true, 1), None);
        assert_eq!(outbox.push(event(3), false, 1), Some(3));
        assert_eq!(outbox.len(), 2);
    }

    #[test]
    fn a_replay_sends_everything_above_the_value_in_order() {
        let mut outbox = Outbox::default();
        for seq in 1..=4 {
            outbox.push(event(seq), true, 10);
            outbox.take_next(at(0));
            let sent = outbox.settle(seq).unwrap();
            outbox.keep(sent.event, 10);
        }
        outbox.push(event(5), true, 10);
        outbox.replay(2);
        let mut sent = Vec::new();
        while let Some(event) = outbox.take_next(at(0)) {
            sent.push(event.seq);
            outbox.settle(event.seq);
        }
        assert_eq!(sent, [3, 4, 5]);
    }

    #[test]
    fn a_replay_leaves_the_event_in_flight_alone() {
        let mut outbox = Outbox::default();
        for seq in 1..=2 {
            outbox.push(event(seq), true, 10);
            outbox.take_next(at(0));
            let sent = outbox.settle(seq).unwrap();
            outbox.keep(sent.event, 10);
        }
        outbox.push(event(3), true, 10);
        outbox.take_next(at(0));
        outbox.replay(0);
        assert_eq!(outbox.settle(3).map(|item| item.event.seq), Some(3));
        assert_eq!(outbox.take_next(at(0)).map(|e| e.seq), Some(1));
    }
}
