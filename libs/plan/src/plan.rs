//! One run: advances, due claims, recoveries and dispatches, expiries, opens, and what changed in who
//! is held.
//!
//! Source: docs/semantics.md, plan.

mod advance;
mod blocks;
mod dispatch;
mod open;
mod retention;
mod soak;

use std::collections::BTreeMap;

use nixfleet_proto::{Gate, Hostname, PlanAction, RolloutId, Timestamp};

use crate::gates::Ledger;
use crate::report::HostReport;
use crate::view::{FleetView, RolloutView};

use dispatch::HeldWave;
pub use retention::RETENTION_DAYS;

/// Most actions of one run: bounds the burst into the log; the next run follows at once.
pub const ACTIONS_MAX: usize = 10_000;

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they must enter the log.
    pub actions: Vec<PlanAction>,
    /// Held hosts by gate; a host counts for every gate that holds it.
    pub held: BTreeMap<Gate, usize>,
    /// When time alone will change the plan; absent when it will not.
    pub next_deadline: Option<Timestamp>,
    /// True when the run stopped at [`ACTIONS_MAX`]: run again as soon as these are in the log.
    pub is_capped: bool,
}

/// Plans one run. The same view and time give the same plan.
pub fn plan(view: &FleetView, now: Timestamp) -> Plan {
    let (run, _) = Run::complete(view, now);
    run.finish()
}

/// Plans one run and lists every host that is held or undecided, by rollout and name. Costs as much
/// as the fleet has hosts.
pub fn explain(view: &FleetView, now: Timestamp) -> (Plan, Vec<HostReport>) {
    let (run, waves) = Run::complete(view, now);
    let mut reports = dispatch::reports(&waves);
    reports.extend(run.undecided());
    reports.sort_by(|a, b| (&a.rollout_id, &a.hostname).cmp(&(&b.rollout_id, &b.hostname)));
    (run.finish(), reports)
}

/// A run in the making.
struct Run<'a> {
    view: &'a FleetView,
    now: Timestamp,
    /// Wave cursors that this run moves.
    advanced: BTreeMap<&'a RolloutId, u32>,
    ledger: Ledger,
    /// Hosts that this run dispatches or recovers; sorted once all of them are in.
    taken: Vec<(&'a RolloutId, &'a Hostname)>,
    held: BTreeMap<Gate, usize>,
    next_deadline: Option<Timestamp>,
    is_capped: bool,
    planned: usize,
    advances: Vec<PlanAction>,
    soaks: Vec<PlanAction>,
    recoveries: Vec<PlanAction>,
    dispatches: Vec<PlanAction>,
    expiries: Vec<PlanAction>,
    opens: Vec<PlanAction>,
    changes: Vec<PlanAction>,
}

impl<'a> Run<'a> {
    fn complete(view: &'a FleetView, now: Timestamp) -> (Self, Vec<HeldWave<'a>>) {
        let mut run = Self {
            view,
            now,
            advanced: BTreeMap::new(),
            ledger: Ledger::default(),
            taken: Vec::new(),
            held: BTreeMap::new(),
            next_deadline: None,
            is_capped: false,
            planned: 0,
            advances: Vec::new(),
            soaks: Vec::new(),
            recoveries: Vec::new(),
            dispatches: Vec::new(),
            expiries: Vec::new(),
            opens: Vec::new(),
            changes: Vec::new(),
        };
        run.plan_advances();
        run.plan_soaks();
        let waves = run.plan_dispatches();
        run.plan_expiries();
        run.plan_opens();
        run.taken.sort_unstable();
        run.plan_block_changes(&waves);
        run.note_freshness();
        (run, waves)
    }

    fn finish(self) -> Plan {
        let mut actions = self.advances;
        actions.extend(self.soaks);
        actions.extend(self.recoveries);
        actions.extend(self.dispatches);
        actions.extend(self.expiries);
        actions.extend(self.opens);
        actions.extend(self.changes);
        Plan {
            actions,
            held: self.held,
            next_deadline: self.next_deadline,
            is_capped: self.is_capped,
        }
    }

    /// The wave that may be dispatched in this run.
    fn cursor(&self, rollout: &RolloutView) -> u32 {
        let advanced = self.advanced.get(&rollout.record.rollout_id);
        advanced.copied().unwrap_or_else(|| rollout.cursor())
    }

    /// Decides whether an action may go into this run; counts it when it may.
    fn admit(&mut self, action: &PlanAction) -> Admitted {
        if let Some(until) = self.view.refused_until(action, self.now) {
            self.note_deadline(until);
            return Admitted::NotAgain;
        }
        if self.planned == ACTIONS_MAX {
            self.is_capped = true;
            return Admitted::NoRoom;
        }
        self.planned += 1;
        Admitted::Yes
    }

    fn note_deadline(&mut self, at: Timestamp) {
        let sooner = self.next_deadline.is_none_or(|deadline| at < deadline);
        if sooner {
            self.next_deadline = Some(at);
        }
    }

    /// A manifest that goes stale holds hosts from then on.
    fn note_freshness(&mut self) {
        let Some(release) = self.view.release() else {
            return;
        };
        for channel in release.manifests().keys() {
            if let Some(until) = release.fresh_until(channel)
                && until >= self.now
            {
                self.note_deadline(until + chrono::TimeDelta::milliseconds(1));
            }
        }
    }

    /// Hosts that no gate holds and that wait for something else.
    fn undecided(&self) -> Vec<HostReport> {
        let open = self.view.rollouts().iter();
        open.flat_map(|(rollout_id, rollout)| {
            rollout.hosts().iter().filter_map(move |(hostname, host)| {
                let waiting = host.waiting(rollout.is_dispatched(hostname), self.now);
                (!waiting.is_empty()).then(|| HostReport {
                    hostname: hostname.clone(),
                    rollout_id: rollout_id.clone(),
                    blocks: Vec::new(),
                    waiting,
                })
            })
        })
        .collect()
    }
}

/// Whether an action goes into a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admitted {
    Yes,
    /// Its last attempt was rejected a short while ago.
    NotAgain,
    /// The run is full.
    NoRoom,
}
