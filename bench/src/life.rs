//! The log of a rollout in which every host does what hosts do: ten entries each, thousands of hosts
//! at a time, in an order that has nothing to do with their names.

use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::{
    Entry, EntryBody, HostEvent, HostEventBody, Minutes, PlanAction, ProbeMode, ProbeName,
    ProbeStatus, Producer, Timestamp,
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

/// What a host says at steps 1 to 8.
pub fn report(host: &PinnedHost, number: usize, step: usize, now: Timestamp) -> HostEventBody {
    match step {
        1 => HostEventBody::DispatchAck {
            current_closure_at_dispatch: closure(1, number),
            received_at: now,
        },
        2 => HostEventBody::ActivationStarted {
            started_at: now,
            switch_method: "switch-to-configuration".to_owned(),
        },
        3 => HostEventBody::ActivationCompleted {
            observed_current_closure: fresh(&host.target_closure),
            exit_code: 0,
            completed_at: now,
        },
        4 => HostEventBody::ProbeTopologyDeclared {
            probes: [("nginx", "http"), ("sshd", "tcp"), ("anssi", "evidence")]
                .map(|(name, kind)| ProbeDeclaration {
                    probe_name: ProbeName::from(name),
                    kind: kind.to_owned(),
                    mode: ProbeMode::Enforce,
                })
                .to_vec(),
            declared_at: now,
        },
        5 => result("nginx", None, now),
        6 => result("sshd", None, now),
        7 => result("anssi", Some(controls()), now),
        _ => HostEventBody::Converged {
            converged_at: now,
            current_closure: fresh(&host.target_closure),
        },
    }
}

/// A text of its own, as decoding makes one.
fn fresh(closure: &nixfleet_proto::ClosureHash) -> nixfleet_proto::ClosureHash {
    closure.as_str().into()
}

fn result(name: &str, sub_results: Option<Vec<SubResult>>, now: Timestamp) -> HostEventBody {
    HostEventBody::ProbeResult {
        probe_name: ProbeName::from(name),
        mode: ProbeMode::Enforce,
        status: ProbeStatus::Pass,
        observed_at: now,
        failure_reason: None,
        sub_results,
    }
}

fn controls() -> Vec<SubResult> {
    ["R1", "R28", "R33"]
        .map(|control| SubResult {
            control_id: control.to_owned(),
            status: ProbeStatus::Pass,
            framework: "anssi-bp028".to_owned(),
            article: None,
            effective_mode: ProbeMode::Enforce,
            override_reason: None,
        })
        .to_vec()
}
