//! Order and duration of the faults: a function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::fault::{ConnectionFailure, Fault, FaultScope, Kind, Server};

/// Lease TTL of the services.
pub const LEASE_TTL: Duration = Duration::from_secs(10);
/// Part of the later process faults that are combined with a server fault, in percent.
const SECOND_FAULT_PERCENT: u32 = 30;

/// Faults that are active together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultGroup {
    /// One fault, or two that overlap.
    pub faults: Vec<Fault>,
    /// Pause under load after the repair.
    pub pause: Duration,
}

impl FaultGroup {
    /// Time until the last fault is repaired.
    pub fn duration(&self) -> Duration {
        let holds = self.faults.iter().map(|fault| fault.duration);
        holds.max().unwrap_or_default()
    }

    /// Name under which the group is counted.
    pub fn name(&self) -> String {
        match self.faults.as_slice() {
            [fault] => fault.kind.to_string(),
            _ => "two at once".to_owned(),
        }
    }
}

/// An endless sequence of groups: first every essential kind once, then rounds of all kinds.
pub struct Schedule {
    rng: StdRng,
    only: Vec<String>,
    remaining: Vec<Kind>,
    round: u32,
}

impl Schedule {
    /// The schedule of a seed; `only` keeps the kinds whose name contains one of the texts.
    pub fn new(seed: u64, only: &[String]) -> Self {
        let mut schedule = Self {
            rng: StdRng::seed_from_u64(seed),
            only: only.to_vec(),
            remaining: Vec::new(),
            round: 0,
        };
        schedule.refill();
        schedule
    }

    /// True while essential kinds remain.
    pub fn is_first_round(&self) -> bool {
        self.round == 1 && !self.remaining.is_empty()
    }

    /// The next group; `None` when no kind has a selected name.
    pub fn next(&mut self) -> Option<FaultGroup> {
        if self.remaining.is_empty() {
            self.refill();
        }
        let kind = self.remaining.pop()?;
        let mut faults = vec![self.fault(kind)];
        if kind.is_process()
            && self.round > 1
            && self.rng.random_range(0..100) < SECOND_FAULT_PERCENT
        {
            faults.extend(self.second_fault());
        }
        // A short run consists of the first round only.
        let pause = match self.round {
            1 => self.seconds(1.0, 2.5),
            _ => self.seconds(1.0, 6.0),
        };
        Some(FaultGroup { faults, pause })
    }

    fn refill(&mut self) {
        self.round += 1;
        let kinds = match (self.round, self.only.is_empty()) {
            (1, true) => Kind::essential(),
            (_, _) => Kind::all(),
        };
        self.remaining = kinds.into_iter().filter(|kind| self.wants(*kind)).collect();
        self.remaining.shuffle(&mut self.rng);
    }

    fn wants(&self, kind: Kind) -> bool {
        let name = kind.to_string();
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let is_first = self.round == 1;
        Fault {
            kind,
            // The process that owns more work is chosen more often.
            number: usize::from(self.rng.random_bool(0.25)),
            scope: if is_first || self.rng.random_bool(0.5) {
                FaultScope::All
            } else {
                FaultScope::Node
            },
            duration: self.duration(kind),
        }
    }

    /// A server fault that begins a moment later and ends before or after the first fault.
    fn second_fault(&mut self) -> Option<Fault> {
        let kinds: Vec<Kind> = Kind::all()
            .into_iter()
            .filter(|k| k.may_be_second())
            .collect();
        let kind = *kinds.choose(&mut self.rng)?;
        Some(self.fault(kind))
    }

    fn duration(&mut self, kind: Kind) -> Duration {
        let ttl = LEASE_TTL.as_secs_f64();
        let is_first = self.round == 1;
        match kind {
            // Either longer than a takeover or shorter than one.
            Kind::Kill(_) if is_first || self.rng.random_bool(0.6) => {
                self.seconds(ttl + 2.0, ttl + 3.0)
            }
            Kind::Kill(_) => self.seconds(0.2, 3.0),
            Kind::Stop(_) => self.seconds(2.0, 4.0),
            Kind::Pause(_) => self.seconds(ttl + 1.5, ttl + 4.0),
            Kind::BreakConnection(
                Server::Nats,
                ConnectionFailure::Stall | ConnectionFailure::HoldReplies,
            ) if !is_first => self.seconds(4.0, 20.0),
            Kind::BreakConnection(
                Server::Postgres,
                ConnectionFailure::Stall | ConnectionFailure::HoldReplies,
            ) if !is_first => self.seconds(4.0, 15.0),
            Kind::BreakConnection(_, ConnectionFailure::Stall | ConnectionFailure::HoldReplies) => {
                self.seconds(5.0, 7.0)
            }
            Kind::SlowPostgres => self.seconds(4.0, 8.0),
            Kind::StepClock => self.seconds(3.0, 6.0),
            Kind::FullInput | Kind::FullOutput | Kind::FullDisk => self.seconds(2.0, 5.0),
            Kind::KillNats
            | Kind::KillPostgres
            | Kind::QuitPostgres
            | Kind::BreakConnection(_, ConnectionFailure::Cut) => self.seconds(0.5, 3.0),
        }
    }

    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(self.rng.random_range(from..to))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn groups(seed: u64, count: usize) -> Vec<FaultGroup> {
        let mut schedule = Schedule::new(seed, &[]);
        (0..count).map(|_| schedule.next().unwrap()).collect()
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        assert_eq!(groups(7, 60), groups(7, 60));
        assert_ne!(groups(7, 60), groups(8, 60));
    }

    #[test]
    fn the_first_round_has_every_essential_kind_once_and_fits_into_two_minutes() {
        for seed in 0..50 {
            let essential = Kind::essential();
            let first = groups(seed, essential.len());
            let kinds: BTreeSet<Kind> = first.iter().map(|group| group.faults[0].kind).collect();
            assert_eq!(kinds, essential.into_iter().collect());
            assert!(first.iter().all(|group| group.faults.len() == 1));
            let time: Duration = first.iter().map(|s| s.duration() + s.pause).sum();
            assert!(time < Duration::from_secs(110), "seed {seed}: {time:?}");
        }
    }

    #[test]
    fn later_rounds_have_every_kind_and_some_overlap() {
        let all = Kind::all();
        let later = &groups(3, Kind::essential().len() + all.len())[Kind::essential().len()..];
        let kinds: BTreeSet<Kind> = later.iter().map(|group| group.faults[0].kind).collect();
        assert_eq!(kinds, all.into_iter().collect());
        assert!(later.iter().any(|group| group.faults.len() == 2));
    }

    #[test]
    fn a_name_filters_the_schedule() {
        let mut schedule = Schedule::new(1, &["reducer".to_owned()]);
        let names: BTreeSet<String> = (0..6)
            .map(|_| schedule.next().unwrap().faults[0].kind.to_string())
            .collect();
        let expected = ["kill reducer", "pause reducer", "stop reducer"];
        assert_eq!(names, expected.map(str::to_owned).into());
        assert!(Schedule::new(1, &["moon".to_owned()]).next().is_none());
    }
}
