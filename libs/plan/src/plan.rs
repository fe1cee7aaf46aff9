//! A planning run: wave advances, due claims, recoveries and dispatches, expiries, openings, changed
//! holds.
//!
//! Source: docs/semantics.md, plan.

mod block_changes;
mod dispatch;
mod plan_run;
mod rollout_opening;
mod soak_completion;
mod superseded_expiry;
mod wave_advance;

use std::collections::BTreeMap;

use nixfleet_proto::{Gate, PlanAction, Timestamp};

use crate::host_report::HostReport;
use crate::view::FleetView;

use dispatch::HeldWave;
pub use plan_run::ACTIONS_MAX;
use plan_run::PlanRun;
pub use superseded_expiry::RETENTION_DAYS;

/// The actions of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Actions, in the order of the log.
    pub actions: Vec<PlanAction>,
    /// Held hosts by gate; a host counts for every gate that holds it.
    pub held: BTreeMap<Gate, usize>,
    /// The next time at which the plan changes without new input; absent when it does not.
    pub next_deadline: Option<Timestamp>,
    /// True when the run stopped at [`ACTIONS_MAX`]: plan again when these are in the log.
    pub is_capped: bool,
}

/// Plans one run. Deterministic: the same view and time give the same plan.
pub fn plan(view: &FleetView, now: Timestamp) -> Plan {
    let (run, _) = PlanRun::complete(view, now);
    run.finish()
}

/// Plans one run and reports every host that is held or waits, by rollout and name. The cost is linear in
/// the number of hosts.
pub fn explain(view: &FleetView, now: Timestamp) -> (Plan, Vec<HostReport>) {
    let (run, waves) = PlanRun::complete(view, now);
    let mut reports = dispatch::reports(&waves);
    reports.extend(run.waiting_hosts());
    reports.sort_by(|a, b| (&a.rollout_id, &a.hostname).cmp(&(&b.rollout_id, &b.hostname)));
    (run.finish(), reports)
}

impl<'a> PlanRun<'a> {
    fn complete(view: &'a FleetView, now: Timestamp) -> (Self, Vec<HeldWave<'a>>) {
        let mut run = Self::new(view, now);
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

    /// Notes the times at which manifests become stale and hold hosts.
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

    fn waiting_hosts(&self) -> Vec<HostReport> {
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
