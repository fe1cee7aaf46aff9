//! A leadership with a loaded view: follows the output logs and polls for releases.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use nixfleet_planner::{LeadershipCore, PlanSchedule};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{OutputFrame, Timestamp};

use super::timing::{INTERVALS, POLL_EVERY, now};
use super::view_loading::ViewLoading;
use crate::addressing::{Incarnation, Route};
use crate::services::reader::Reader;
use crate::simulated_servers::LogId;
use crate::simulation::environment::Environment;

/// A plan whose actions are being appended.
#[derive(Debug, Clone, Copy)]
pub struct PlannedTurn {
    /// When time alone changes something next.
    pub deadline: Option<Timestamp>,
    /// The plan has more actions than one turn appends.
    pub is_capped: bool,
}

/// A timer and when it expires.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    pub call: u64,
    pub due: Duration,
}

/// A leadership with a loaded view.
#[derive(Debug)]
pub struct LoadedLeadership {
    pub leader: LeadershipCore,
    pub schedule: PlanSchedule,
    pub readers: BTreeMap<Partition, Reader>,
    /// Frames that wait until the results of all appends are known.
    pub inbox: VecDeque<(Partition, Rc<OutputFrame>)>,
    /// Appends without a result.
    pub appending: usize,
    /// The plan that is being appended.
    pub planned: Option<PlannedTurn>,
    /// When held partitions are tried again.
    pub held_due: Duration,
    /// The timer of the next plan.
    pub wake: Option<Timer>,
    /// The timer of the next poll for releases.
    pub polls: Option<u64>,
    release: usize,
}

impl LoadedLeadership {
    pub fn start(loading: &mut ViewLoading, me: Incarnation, env: &mut Environment) -> Self {
        let view = std::mem::take(&mut loading.view);
        let mut leader = LeadershipCore::new(view, env.shape.partitions);
        let next = std::mem::take(&mut loading.next);
        let readers = next.into_iter().map(|(partition, start)| {
            leader.set_origin(partition, start.origin);
            let mut reader = Reader::new(
                LogId::Output(partition),
                Route::Reader(partition),
                start.next,
            );
            reader.ask(me, env);
            (partition, reader)
        });
        Self {
            readers: readers.collect(),
            leader,
            schedule: PlanSchedule::new(INTERVALS),
            inbox: VecDeque::new(),
            appending: 0,
            planned: None,
            held_due: Duration::ZERO,
            wake: None,
            polls: None,
            release: 0,
        }
    }

    /// Passes a newer release to the leader.
    pub fn poll_releases(&mut self, me: Incarnation, env: &mut Environment) {
        self.polls = Some(env.start_timer(me, Route::Process, POLL_EVERY));
        if self.release < env.releases.len() {
            self.release = env.releases.len();
            let release = env.releases[self.release - 1].plan.clone();
            self.leader.set_release(release);
            self.schedule.release_changed(now(me, env));
        }
    }

    pub fn apply_inbox(&mut self, me: Incarnation, env: &Environment) -> Result<(), String> {
        while let Some((partition, frame)) = self.inbox.pop_front() {
            self.leader
                .begin_frame(partition, &frame)
                .map_err(|error| error.to_string())?;
            for outcome in &frame.outcomes {
                self.leader
                    .apply_outcome(partition, outcome, &env.pinned)
                    .map_err(|error| format!("{error}"))?;
            }
            self.schedule.view_changed(now(me, env));
        }
        Ok(())
    }

    pub fn wake_at(&mut self, due: Duration, me: Incarnation, env: &mut Environment) {
        if self.wake.is_some_and(|timer| timer.due <= due) {
            return;
        }
        let pause = due.saturating_sub(env.now.since_start());
        let call = env.start_timer(me, Route::Process, pause);
        self.wake = Some(Timer { call, due });
    }
}
