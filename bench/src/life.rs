//! The log of a rollout in which every host does what hosts do: ten entries each, thousands of hosts
//! at a time, in an order that has nothing to do with their names.

use nixfleet_harness::agent_script;
use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::{
    Entry, EntryBody, HostEvent, HostEventBody, Minutes, PlanAction, Producer, Timestamp,
};

use crate::fleet::{Fleet, SOAK_MINUTES, at, closure};

/// Entries per host.
pub const STEPS: usize = 10;
/// Hosts that go through their lives side by side.
const WINDOW: usize = 2_000;
/// Planner epoch of the log.
pub const EPOCH: u64 = 1;

/// An endless supply of entries until every host has converged.
pub struct Life<'a> {
    fleet: &'a Fleet,
    /// Hosts by wave, in the order in which they act.
    waves: Vec<Vec<u32>>,
    wave: usize,
    /// First host of the window, step of it, host in it.
    place: (usize, usize, usize),
    milliseconds: u64,
}

impl<'a> Life<'a> {
    /// The log of a fleet, after the barrier and the opening.
    pub fn new(fleet: &'a Fleet) -> Self {
        let mut waves = vec![Vec::new(); fleet.pinned.waves.len()];
        for (number, host) in (0..).zip(&fleet.pinned.host_set) {
            waves[host.wave_index as usize].push(number);
        }
        waves.iter_mut().for_each(|wave| shuffle(wave));
        Self {
            fleet,
            waves,
            wave: 0,
            place: (0, 0, 0),
            milliseconds: 0,
        }
    }

    /// What comes before: a leader and the open rollout.
    pub fn beginning(fleet: &Fleet) -> [Entry; 2] {
        [PlanAction::Barrier {}, fleet.open()].map(Self::planned)
    }

    /// What the planner does before anything else.
    pub fn planned(action: PlanAction) -> Entry {
        let epoch = EPOCH;
        Entry::new(at(0), EntryBody::Plan { epoch, action })
    }

    fn plan(&self, action: PlanAction) -> Entry {
        let epoch = EPOCH;
        Entry::new(at(self.milliseconds), EntryBody::Plan { epoch, action })
    }

    /// What a host does at a step.
    fn act(&self, number: u32, step: usize) -> Entry {
        let host = &self.fleet.pinned.host_set[number as usize];
        let now = at(self.milliseconds);
        match step {
            0 => self.plan(PlanAction::QueueDispatch {
                hostname: host.hostname.clone(),
                rollout_id: self.fleet.rollout_id.clone(),
                target_closure: host.target_closure.clone(),
                soak_minutes: Minutes::from_minutes(SOAK_MINUTES),
            }),
            9 => self.plan(PlanAction::SoakElapsed {
                hostname: host.hostname.clone(),
                rollout_id: self.fleet.rollout_id.clone(),
            }),
            _ => Entry::new(
                now,
                EntryBody::HostEvent {
                    rollout_id: self.fleet.rollout_id.clone(),
                    hostname: host.hostname.clone(),
                    producer: Producer::Agent,
                    event: HostEvent {
                        seq: step as u64,
                        body: report(host, number as usize, step, now),
                    },
                },
            ),
        }
    }
}

impl Iterator for Life<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let wave = self.waves.get(self.wave)?;
        let (first, step, index) = self.place;
        let window = &wave[first..wave.len().min(first + WINDOW)];
        let Some(number) = window.get(index).copied() else {
            if step + 1 < STEPS {
                self.place = (first, step + 1, 0);
                if step + 2 == STEPS {
                    self.milliseconds += SOAK_MINUTES * 60_000 + 60_000;
                }
                return self.next();
            }
            self.place = (first + WINDOW, 0, 0);
            if first + WINDOW < wave.len() {
                return self.next();
            }
            self.place = (0, 0, 0);
            self.wave += 1;
            if self.wave == self.waves.len() {
                return None;
            }
            let from_wave = self.wave as u32 - 1;
            return Some(self.plan(PlanAction::AdvanceWave {
                rollout_id: self.fleet.rollout_id.clone(),
                from_wave,
                to_wave: from_wave + 1,
            }));
        };
        self.place.2 += 1;
        if index % 4 == 0 {
            self.milliseconds += 1;
        }
        Some(self.act(number, step))
    }
}

/// A fixed disorder (Fisher and Yates on a multiplicative generator).
pub fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for end in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let other = (state >> 33) as usize % (end + 1);
        items.swap(end, other);
    }
}

/// What a host reports at steps 1 to 8.
pub fn report(host: &PinnedHost, number: usize, step: usize, now: Timestamp) -> HostEventBody {
    agent_script::report(&host.target_closure, &closure(1, number), step, now)
}
