//! Queue of unacknowledged events of one rollout: in order, one request in flight.

use std::collections::VecDeque;

use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{HostEventBody, Timestamp};

/// The queue of one rollout; events are keyed by their sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    waiting: VecDeque<Outgoing>,
    /// Events at the front of the queue that are in flight.
    in_flight: usize,
    /// A request of an earlier walk of the rollout is in flight.
    is_earlier_in_flight: bool,
    /// Events at the front of the queue that are sent one at a time.
    single_sends: usize,
    attempts: u32,
    not_before: Option<Timestamp>,
    kept: VecDeque<WireEvent>,
}

/// Bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Largest number of events.
    pub events: usize,
    /// Largest sum of event sizes in bytes, by [`size`]; a single event may be larger.
    pub bytes: usize,
}

/// Result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEnd {
    /// Every event of the request was acknowledged or refused.
    Settled,
    /// Some were not, so many requests in a row.
    Unsettled {
        /// Attempts in a row, this one included.
        attempts: u32,
    },
}

/// An event in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The event.
    pub event: WireEvent,
    /// True when it must survive a crash.
    pub durable: bool,
}

impl Outbox {
    /// A queue restored after a restart: unacknowledged events, and acknowledged ones for a replay.
    pub fn restored(waiting: Vec<WireEvent>, kept: Vec<WireEvent>) -> Self {
        let mut outbox = Self {
            waiting: waiting
                .into_iter()
                .map(|event| Outgoing {
                    event,
                    durable: true,
                })
                .collect(),
            kept: kept.into(),
            ..Self::default()
        };
        outbox.sort();
        outbox
    }

    /// A queue that replaces one of an earlier walk: its first request waits for the last one of that walk.
    pub fn after(earlier: &Self) -> Self {
        Self {
            is_earlier_in_flight: earlier.is_earlier_in_flight || earlier.in_flight > 0,
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
        let dropped = self
            .waiting
            .iter()
            .skip(self.in_flight)
            .position(|item| !item.durable)?;
        self.waiting
            .remove(self.in_flight + dropped)
            .map(|item| item.event.seq)
    }

    /// The events to send now in one request, in order, which then are in flight; empty while
    /// others are.
    pub fn take_next(&mut self, now: Timestamp, limits: RequestLimits) -> Vec<WireEvent> {
        if self.is_busy() || self.not_before.is_some_and(|due| now < due) {
            return Vec::new();
        }
        let most = if self.single_sends > 0 {
            1
        } else {
            limits.events
        };
        let mut bytes = 0;
        let together = self.waiting.iter().take(most).take_while(|item| {
            let is_first = bytes == 0;
            bytes += size(&item.event.body);
            is_first || bytes <= limits.bytes
        });
        let events: Vec<_> = together.map(|item| item.event.clone()).collect();
        self.in_flight = events.len();
        events
    }

    /// Sequences of the events in flight, in order.
    pub fn in_flight_seqs(&self) -> impl Iterator<Item = u64> {
        let flight = self.waiting.iter().take(self.in_flight);
        flight.map(|item| item.event.seq)
    }

    /// True while the event with this sequence is in flight.
    pub fn is_in_flight(&self, seq: u64) -> bool {
        self.index_in_flight(seq).is_some()
    }

    fn index_in_flight(&self, seq: u64) -> Option<usize> {
        self.in_flight_seqs().position(|in_flight| in_flight == seq)
    }

    /// Removes an event with a result from the queue; `None` when it is not in flight.
    pub fn take_answered(&mut self, seq: u64) -> Option<Outgoing> {
        let index = self.index_in_flight(seq)?;
        self.in_flight -= 1;
        self.single_sends = self.single_sends.saturating_sub(1);
        self.attempts = 0;
        self.not_before = None;
        self.waiting.remove(index)
    }

    /// Ends the request of an earlier walk: its events are of no interest here.
    pub fn finish_earlier_request(&mut self) {
        self.is_earlier_in_flight = false;
    }

    /// Ends the request; events without a result stay at the front of the queue.
    pub fn finish_request(&mut self) -> RequestEnd {
        if std::mem::take(&mut self.in_flight) == 0 {
            return RequestEnd::Settled;
        }
        self.sort();
        self.attempts = self.attempts.saturating_add(1);
        RequestEnd::Unsettled {
            attempts: self.attempts,
        }
    }

    /// Ends a request with several events that was refused as a whole: from now on each of them is sent in
    /// its own request, so that one cannot block the others. False when only one was in flight.
    pub fn send_one_by_one(&mut self) -> bool {
        if self.in_flight < 2 {
            return false;
        }
        self.single_sends = std::mem::take(&mut self.in_flight);
        self.sort();
        true
    }

    /// Sorts the events that are not in flight: a replay adds events older than the queued ones, and events
    /// that were in flight at that time.
    fn sort(&mut self) {
        let waiting = &mut self.waiting.make_contiguous()[self.in_flight..];
        waiting.sort_by_key(|item| item.event.seq);
    }

    /// Retains an acknowledged event for a replay; drops the oldest above `kept_max`.
    pub fn retain_for_replay(&mut self, event: WireEvent, kept_max: usize) {
        let at = self.kept.partition_point(|known| known.seq < event.seq);
        if self.kept.get(at).is_none_or(|known| known.seq != event.seq) {
            self.kept.insert(at, event);
        }
        while self.kept.len() > kept_max {
            self.kept.pop_front();
        }
    }

    /// Delays the next request until `due`.
    pub fn wait_until(&mut self, due: Timestamp) {
        self.not_before = Some(due);
    }

    /// Queues the retained events above `after` again. Events in flight stay in front until their request
    /// ends.
    pub fn replay(&mut self, after: u64) {
        let first = self.kept.partition_point(|event| event.seq <= after);
        for event in self.kept.split_off(first) {
            if !self.waiting.iter().any(|item| item.event.seq == event.seq) {
                let durable = true;
                self.waiting.push_back(Outgoing { event, durable });
            }
        }
        self.sort();
    }

    /// The durable unacknowledged events, for the journal.
    pub fn durable(&self) -> Vec<WireEvent> {
        self.waiting
            .iter()
            .filter(|item| item.durable)
            .map(|item| item.event.clone())
            .collect()
    }

    /// The retained acknowledged events, for the journal.
    pub fn kept(&self) -> Vec<WireEvent> {
        self.kept.iter().cloned().collect()
    }

    /// Number of waiting events, those in flight included.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Sequence of the first event that waits, 0 when none does.
    pub fn first_waiting(&self) -> u64 {
        self.waiting.front().map_or(0, |item| item.event.seq)
    }

    /// True when there are no unacknowledged events.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True while a request is in flight, also one of an earlier walk.
    fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.is_earlier_in_flight
    }

    /// Time at which [`Self::take_next`] returns events; `None` while a request is in flight or no event waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.is_busy() || self.waiting.is_empty() {
            return None;
        }
        Some(self.not_before.unwrap_or(Timestamp::MIN_UTC))
    }
}

/// Approximate size of an event in a request, in bytes.
fn size(body: &HostEventBody) -> usize {
    /// Names, times and keys of an event.
    const FIXED_BYTES: usize = 512;
    /// Names, times and keys of a list item.
    const ITEM_BYTES: usize = 256;
    let texts = match body {
        HostEventBody::ActivationFailed { stderr_tail, .. } => stderr_tail.len(),
        HostEventBody::RollbackFailed { detail, .. } => detail.len(),
        HostEventBody::ProbeTopologyDeclared { probes, .. } => probes.len() * ITEM_BYTES,
        HostEventBody::ProbeResult {
            failure_reason,
            sub_results,
            ..
        } => {
            let results = sub_results
                .iter()
                .flatten()
                .map(|result| ITEM_BYTES + result.override_reason.as_ref().map_or(0, String::len));
            failure_reason.as_ref().map_or(0, String::len) + results.sum::<usize>()
        }
        HostEventBody::Failed { failing_probes, .. } => failing_probes.len() * ITEM_BYTES,
        HostEventBody::DispatchAck { .. }
        | HostEventBody::ActivationStarted { .. }
        | HostEventBody::ActivationCompleted { .. }
        | HostEventBody::ActivationDeferred { .. }
        | HostEventBody::ProbeObservedFirst { .. }
        | HostEventBody::ProbeFailureFirst { .. }
        | HostEventBody::RollbackComplete { .. }
        | HostEventBody::Converged { .. } => 0,
    };
    // Some characters take more in JSON.
    FIXED_BYTES + 2 * texts
}

#[cfg(test)]
mod tests;
