//! The workload of the benchmarks: the input log of one rollout, ten entries per host, in a deterministic
//! shuffled order of thousands of hosts at a time.

use nixfleet_harness::agent_event_sequence;
use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::{
    Entry, EntryBody, HostEvent, HostEventBody, Minutes, PlanAction, Producer, Timestamp,
};

use crate::synthetic_fleet::{SOAK_MINUTES, SyntheticFleet, at, closure};

/// Entries per host.
pub const STEPS: usize = 10;
/// Hosts whose entries interleave.
const WINDOW: usize = 2_000;
/// Planner epoch of the log.
pub const EPOCH: u64 = 1;

/// Iterator over the entries of a rollout, until every host has converged.
pub struct Workload<'a> {
    fleet: &'a SyntheticFleet,
    /// Hosts by wave, in the order in which they act.
    waves: Vec<Vec<u32>>,
    position: WavePosition,
    milliseconds: u64,
}

/// The next entry: a wave, a window of its hosts, a step of these hosts, one of them.
#[derive(Clone, Copy, Default)]
struct WavePosition {
    wave: usize,
    window_start: usize,
    step: usize,
    index_in_window: usize,
}

impl<'a> Workload<'a> {
    /// Entries of a fleet that follow [`Workload::opening_entries`].
    pub fn new(fleet: &'a SyntheticFleet) -> Self {
        let mut waves = vec![Vec::new(); fleet.pinned.waves.len()];
        for (number, host) in (0..).zip(&fleet.pinned.host_set) {
            waves[host.wave_index as usize].push(number);
        }
        waves.iter_mut().for_each(|wave| shuffle(wave));
        Self {
            fleet,
            waves,
            position: WavePosition::default(),
            milliseconds: 0,
        }
    }

    /// The barrier of a leader, and the opening of the rollout.
    pub fn opening_entries(fleet: &SyntheticFleet) -> [Entry; 2] {
        [PlanAction::Barrier {}, fleet.open()].map(Self::plan_entry)
    }

    /// An action of the planner at the start of the log.
    pub fn plan_entry(action: PlanAction) -> Entry {
        let epoch = EPOCH;
        Entry::new(at(0), EntryBody::Plan { epoch, action })
    }

    fn plan(&self, action: PlanAction) -> Entry {
        let epoch = EPOCH;
        Entry::new(at(self.milliseconds), EntryBody::Plan { epoch, action })
    }

    /// The entry of a host at a step.
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
                        body: event_at_step(host, number as usize, step, now),
                    },
                },
            ),
        }
    }
}

impl Iterator for Workload<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let position = self.position;
        let wave = self.waves.get(position.wave)?;
        let window_end = wave.len().min(position.window_start + WINDOW);
        let window = &wave[position.window_start..window_end];
        if let Some(number) = window.get(position.index_in_window).copied() {
            self.position.index_in_window += 1;
            if position.index_in_window.is_multiple_of(4) {
                self.milliseconds += 1;
            }
            return Some(self.act(number, position.step));
        }
        self.position.index_in_window = 0;
        if position.step + 1 < STEPS {
            self.position.step += 1;
            if self.position.step + 1 == STEPS {
                self.milliseconds += SOAK_MINUTES * 60_000 + 60_000;
            }
            return self.next();
        }
        self.position.step = 0;
        if window_end < wave.len() {
            self.position.window_start = window_end;
            return self.next();
        }
        self.position = WavePosition {
            wave: position.wave + 1,
            ..WavePosition::default()
        };
        if self.position.wave == self.waves.len() {
            return None;
        }
        let from_wave = position.wave as u32;
        Some(self.plan(PlanAction::AdvanceWave {
            rollout_id: self.fleet.rollout_id.clone(),
            from_wave,
            to_wave: from_wave + 1,
        }))
    }
}

/// A deterministic shuffle: Fisher and Yates on a linear congruential generator.
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

/// The event that a host reports at a step from 1 to 8.
pub fn event_at_step(
    host: &PinnedHost,
    number: usize,
    step: usize,
    now: Timestamp,
) -> HostEventBody {
    agent_event_sequence::event_at_step(&host.target_closure, &closure(1, number), step, now)
}
