//! The state of a planning run: actions so far, and admission of further ones.

use std::collections::BTreeMap;

use nixfleet_proto::{Gate, Hostname, PlanAction, RolloutId, Timestamp};

use crate::gates::PlannedDispatches;
use crate::view::{FleetView, RolloutView};

/// Most actions of one run: bounds the burst into the log. The next run follows immediately.
pub const ACTIONS_MAX: usize = 10_000;

pub(super) struct PlanRun<'a> {
    pub(super) view: &'a FleetView,
    pub(super) now: Timestamp,
    /// New wave cursors of this run.
    pub(super) advanced: BTreeMap<&'a RolloutId, u32>,
    pub(super) planned_dispatches: PlannedDispatches,
    /// Hosts that this run dispatches or recovers; sorted after the last one.
    pub(super) taken: Vec<(&'a RolloutId, &'a Hostname)>,
    pub(super) held: BTreeMap<Gate, usize>,
    pub(super) next_deadline: Option<Timestamp>,
    pub(super) is_capped: bool,
    planned: usize,
    pub(super) advances: Vec<PlanAction>,
    pub(super) soaks: Vec<PlanAction>,
    pub(super) recoveries: Vec<PlanAction>,
    pub(super) dispatches: Vec<PlanAction>,
    pub(super) expiries: Vec<PlanAction>,
    pub(super) opens: Vec<PlanAction>,
    pub(super) changes: Vec<PlanAction>,
}

impl<'a> PlanRun<'a> {
    pub(super) fn new(view: &'a FleetView, now: Timestamp) -> Self {
        Self {
            view,
            now,
            advanced: BTreeMap::new(),
            planned_dispatches: PlannedDispatches::default(),
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
        }
    }

    /// The wave that may be dispatched in this run.
    pub(super) fn cursor(&self, rollout: &RolloutView) -> u32 {
        let advanced = self.advanced.get(&rollout.record.rollout_id);
        advanced.copied().unwrap_or_else(|| rollout.cursor())
    }

    /// Decides whether an action may be added to this run, and counts it if so.
    pub(super) fn admit(&mut self, action: &PlanAction) -> Admitted {
        if action.rollout_id().is_some_and(|id| self.is_held(id)) {
            return Admitted::NotAgain;
        }
        if let Some(until) = self.view.rejected_until(action, self.now) {
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

    /// True when the partition of a rollout takes no entries.
    pub(super) fn is_held(&self, rollout_id: &RolloutId) -> bool {
        !self.view.held.is_empty() && self.view.held.of(&rollout_id.channel()).is_some()
    }

    pub(super) fn note_deadline(&mut self, at: Timestamp) {
        let sooner = self.next_deadline.is_none_or(|deadline| at < deadline);
        if sooner {
            self.next_deadline = Some(at);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    Yes,
    /// The last attempt was rejected recently, or the partition takes no entries.
    NotAgain,
    /// The run reached its limit.
    NoRoom,
}
