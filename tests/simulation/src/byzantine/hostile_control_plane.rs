//! A control plane that says whatever it likes, and has no key.
//!
//! Most of what it says is plausible, so that agents get far: it keeps the records that an honest control
//! plane would have, offers genuine releases, and changes some of it on the way. The seed decides how
//! often.

mod artifacts;
mod dispatches;
mod event_results;
mod false_values;
mod snapshots;

use std::collections::BTreeMap;

use nixfleet_core::host::{self, HostInput, StepCtx};
use nixfleet_proto::host::NewHost;
use nixfleet_proto::wire::{Dispatch, EventRequest, HostSnapshot};
use nixfleet_proto::{
    HostEvent, HostRecord, Hostname, Minutes, OnHealthFailure, Producer, RolloutId, RolloutState,
    Timestamp,
};

use super::answer::Answer;
use super::coverage::{Coverage, Falsehood};
use super::genuine_releases::AnswerContext;
use crate::engine::Rng;

/// The hostile control plane.
#[derive(Debug)]
pub struct HostileControlPlane {
    rng: Rng,
    rates: FaultRates,
    records: BTreeMap<(Hostname, RolloutId), HostRecord>,
    sent_snapshots: BTreeMap<Hostname, Vec<HostSnapshot>>,
    offered: BTreeMap<Hostname, Dispatch>,
    /// What it told.
    pub coverage: Coverage,
}

/// How often something of a kind happens, in 1,000 answers; for a whole run, so that some runs are nearly
/// honest and in others hardly anything is true.
#[derive(Debug, Clone, Copy)]
struct FaultRates {
    falsehoods: u32,
    lost: u32,
    slow: u32,
    /// A false answer is given again: agents act on repetition only.
    repeated: u32,
}

impl HostileControlPlane {
    /// The control plane of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "hostile control plane");
        let rates = FaultRates {
            falsehoods: *rng.pick(&[60, 150, 300, 500, 900]),
            lost: *rng.pick(&[0, 20, 100]),
            slow: *rng.pick(&[10, 60, 250]),
            repeated: *rng.pick(&[100, 400]),
        };
        Self {
            rng,
            rates,
            records: BTreeMap::new(),
            sent_snapshots: BTreeMap::new(),
            offered: BTreeMap::new(),
            coverage: Coverage::default(),
        }
    }

    /// True when the next answer is false.
    fn is_false(&mut self) -> bool {
        self.rng.chance(self.rates.falsehoods)
    }

    fn tell(&mut self, falsehood: Falsehood) {
        self.coverage.count(falsehood);
    }

    /// Sends an answer: soon, late, unreadable or never.
    fn answer<T>(&mut self, body: T) -> Answer<T> {
        self.coverage.answers += 1;
        if self.rng.chance(self.rates.lost) {
            let unreadable = self.rng.chance(500);
            self.tell(if unreadable {
                Falsehood::AnswerUnreadable
            } else {
                Falsehood::AnswerLost
            });
            let millis = if unreadable { 20 } else { 100_000 };
            return Answer::after_millis(millis, None);
        }
        let millis = if self.rng.chance(self.rates.slow) {
            self.tell(Falsehood::AnswerSlow);
            self.rng.range(1_000, 70_000)
        } else {
            self.rng.range(2, 60)
        };
        Answer::after_millis(millis, Some(body))
    }

    /// Keeps the record that an honest control plane would have after these events.
    fn note_events(&mut self, requests: &[EventRequest], at: AnswerContext<'_>) {
        for request in requests {
            let key = (request.hostname.clone(), request.rollout_id.clone());
            let record = self
                .records
                .remove(&key)
                .or_else(|| new_record(&key, at))
                .map(|record| after_event(record, request, at.wall()));
            self.records.extend(record.map(|record| (key, record)));
        }
    }
}

fn new_record(
    (hostname, rollout_id): &(Hostname, RolloutId),
    at: AnswerContext<'_>,
) -> Option<HostRecord> {
    let targets = at.targets_of(hostname);
    let target = targets
        .iter()
        .rfind(|target| target.rollout_id == *rollout_id)?;
    Some(HostRecord::pending(NewHost {
        rollout_id: rollout_id.clone(),
        hostname: hostname.clone(),
        channel: rollout_id.channel(),
        target_closure: target.closure.clone(),
        soak_minutes: Minutes::from_seconds(10),
        dispatched_at: at.wall(),
    }))
}

fn after_event(record: HostRecord, request: &EventRequest, received_at: Timestamp) -> HostRecord {
    let event = HostEvent::from(request.event.clone());
    let ctx = StepCtx {
        on_health_failure: OnHealthFailure::RollbackAndHalt,
        rollout_state: RolloutState::Active,
        received_at,
    };
    let input = HostInput::Event {
        producer: Producer::Agent,
        event: &event,
    };
    host::step(&record, &input, &ctx).map_or(record, |step| step.next)
}
