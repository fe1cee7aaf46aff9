//! A term that follows the logs, hears of releases and knows when to plan.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use nixfleet_planner::{Leader, PlanSchedule};
use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;

use super::timing::{INTERVALS, POLL_EVERY, now};
use super::view_loading::ViewLoading;
use crate::addressing::{Incarnation, Route};
use crate::model::Log;
use crate::services::reader::Reader;
use crate::simulation::environment::Environment;

/// A term that follows the logs.
#[derive(Debug)]
pub struct ActiveTerm {
    pub leader: Leader,
    pub schedule: PlanSchedule,
    pub readers: BTreeMap<Partition, Reader>,
    /// Frames that wait until everything appended is noted.
    pub inbox: VecDeque<(Partition, Rc<OutputFrame>)>,
    /// Appends whose fate is not known yet.
    pub appending: usize,
    /// Deadline and cap of the plan that is being appended.
    pub planned: Option<(Option<nixfleet_proto::Timestamp>, bool)>,
    /// The timer of the next look.
    pub wake: Option<(u64, Duration)>,
    pub polls: Option<u64>,
    release: usize,
}

impl ActiveTerm {
    pub fn start(loading: &mut ViewLoading, me: Incarnation, env: &mut Environment) -> Self {
        let view = std::mem::take(&mut loading.view);
        let mut leader = Leader::new(view, env.shape.partitions);
        let next = std::mem::take(&mut loading.next);
        let readers = next.into_iter().map(|(partition, (next, origin))| {
            leader.set_origin(partition, origin);
            let mut reader = Reader::new(Log::Output(partition), Route::Reader(partition), next);
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
            wake: None,
            polls: None,
            release: 0,
        }
    }

    /// Looks whether there is a newer release.
    pub fn poll_releases(&mut self, me: Incarnation, env: &mut Environment) {
        self.polls = Some(env.timer(me, Route::Process, POLL_EVERY));
        if self.release < env.releases.len() {
            self.release = env.releases.len();
            let release = env.releases[self.release - 1].plan.clone();
            self.leader.set_release(release);
            self.schedule.release_changed(now(me, env));
        }
    }

    pub fn apply_outcome(&mut self, me: Incarnation, env: &Environment) -> Result<(), String> {
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
        if self.wake.is_some_and(|(_, planned)| planned <= due) {
            return;
        }
        let pause = due.saturating_sub(env.now.since_start());
        self.wake = Some((env.timer(me, Route::Process, pause), due));
    }
}
