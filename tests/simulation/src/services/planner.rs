//! The planner: each leadership loads the view and follows the output logs. With the lease it appends barriers
//! against older leaders and plans. All decisions are those of the real [`LeadershipCore`].

mod loaded_leadership;
mod timing;
mod view_loading;

use std::rc::Rc;
use std::time::Duration;

use nixfleet_bus::{AppendError, MessageIds};
use nixfleet_planner::{Appends, HoldReason, LeadershipCore, Stage};
use nixfleet_proto::PlanAction;
use nixfleet_proto::subject::Partition;

use super::input_publisher::InputPublisher;
use super::leases::{LeaseChange, Leases};
use crate::addressing::{Incarnation, Route, Service};
use crate::simulated_servers::{CallResult, ServerReply};
use crate::simulation::environment::Environment;
use loaded_leadership::{LoadedLeadership, PlannedTurn};
use timing::{INTERVALS, now};
use view_loading::ViewLoading;

/// The one key of the planner's leases.
const LEADER: &str = "leader";
/// Pause before a held partition is tried again.
const HELD_RETRY: Duration = Duration::from_secs(2);
/// Pause after a leadership that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A planner process.
#[derive(Debug)]
pub struct Planner {
    me: Incarnation,
    leases: Leases,
    publisher: InputPublisher<AppendTicket>,
    stage: Leadership,
    /// It holds the lease of the leader.
    leads: bool,
    /// Counts leaderships: results of appends of an earlier leadership are ignored.
    leadership: u64,
}

/// What an append belongs to.
#[derive(Debug, Clone)]
struct AppendTicket {
    leadership: u64,
    partition: Partition,
    action: PlanAction,
    awaited: Awaited,
}

/// Whether outcomes and plans wait for the result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Yes,
    /// A barrier of a held partition: the others go on meanwhile.
    No,
}

/// The current leadership.
#[derive(Debug)]
enum Leadership {
    /// Waits before the next attempt.
    Resting(u64),
    Loading(Box<ViewLoading>),
    Active(Box<LoadedLeadership>),
}

impl Planner {
    /// A planner that just started.
    pub fn start(me: Incarnation, env: &mut Environment) -> Self {
        let name = env.processes[me.id].name();
        let ids = Rc::new(MessageIds::new(&name, &me.life.to_string()));
        let leases = Leases::start(me, Service::Planner, vec![LEADER.to_owned()], env);
        Self {
            me,
            leases,
            publisher: InputPublisher::new(env.shape.partitions, ids),
            stage: Leadership::Loading(Box::new(ViewLoading::start(me, env))),
            leads: false,
            leadership: 0,
        }
    }

    /// Ends orderly.
    pub fn stop(&mut self, env: &mut Environment) -> bool {
        let (changes, is_ended) = self.leases.stop(env);
        self.change(changes, env);
        is_ended
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    fn change(&mut self, changes: Vec<LeaseChange>, env: &mut Environment) {
        for change in changes {
            match change {
                LeaseChange::Acquired(_) => {
                    self.leads = true;
                    self.proceed(env);
                }
                LeaseChange::Lost(key) | LeaseChange::ReleaseRequested(key) => {
                    env.trace(format_args!("{} lost its lease", self.name(env)));
                    self.leads = false;
                    self.load(env);
                    let mut changes = self.leases.release(&key, env);
                    changes.extend(self.leases.want(&key, env));
                    self.change(changes, env);
                }
            }
        }
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(
        &mut self,
        route: Route,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        match route {
            Route::Lease => {
                let changes = self.leases.take(call, reply, env);
                self.change(changes, env);
            }
            Route::InputPublisher(partition) => {
                let answers =
                    self.publisher
                        .take(partition, CallResult { call, reply }, self.me, env);
                for (ticket, result) in answers {
                    self.appended(ticket, result, env);
                }
            }
            Route::Reader(partition) => self.read(partition, CallResult { call, reply }, env),
            Route::Process => self.timer_or_load(call, reply, env),
            Route::Work(_) | Route::LogSpace(_) => {}
        }
    }

    fn name(&self, env: &Environment) -> String {
        env.processes[self.me.id].name()
    }

    /// Ends the leadership; the next one begins after a pause.
    fn fail(&mut self, why: &str, env: &mut Environment) {
        env.trace(format_args!(
            "{} ends its leadership: {why}",
            self.name(env)
        ));
        self.leadership += 1;
        self.stage = Leadership::Resting(env.start_timer(self.me, Route::Process, PAUSE));
    }

    fn load(&mut self, env: &mut Environment) {
        self.leadership += 1;
        self.stage = Leadership::Loading(Box::new(ViewLoading::start(self.me, env)));
    }

    fn timer_or_load(&mut self, call: u64, reply: Option<ServerReply>, env: &mut Environment) {
        match &mut self.stage {
            Leadership::Resting(timer) if *timer == call => self.load(env),
            Leadership::Loading(loading) if loading.call == call => self.loaded(reply, env),
            Leadership::Active(active) if active.polls == Some(call) => {
                active.poll_releases(self.me, env);
                self.proceed(env);
            }
            Leadership::Active(active) if active.wake.is_some_and(|timer| timer.call == call) => {
                active.wake = None;
                self.proceed(env);
            }
            Leadership::Resting(_) | Leadership::Loading(_) | Leadership::Active(_) => {}
        }
    }

    fn loaded(&mut self, reply: Option<ServerReply>, env: &mut Environment) {
        let Leadership::Loading(loading) = &mut self.stage else {
            return;
        };
        match loading.take(reply, env) {
            Ok(Some(request)) => loading.call = env.call(self.me, Route::Process, request),
            Ok(None) => {
                let active = LoadedLeadership::start(loading, self.me, env);
                self.stage = Leadership::Active(Box::new(active));
                self.proceed(env);
            }
            Err(why) => self.fail(&why, env),
        }
    }

    fn read(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let Leadership::Active(active) = &mut self.stage else {
            return;
        };
        let Some(reader) = active.readers.get_mut(&partition) else {
            return;
        };
        match reader.take(call, reply) {
            Ok(messages) => {
                reader.ask(self.me, env);
                for message in messages {
                    match message.output() {
                        Some(frame) => active.inbox.push_back((partition, Rc::clone(frame))),
                        None => {
                            // The frames before it wait in the inbox; the log is read no further.
                            active.readers.remove(&partition);
                            let held = active.leader.hold(partition, HoldReason::Unreadable);
                            if let Err(why) = held {
                                return self.fail(&why.to_string(), env);
                            }
                            break;
                        }
                    }
                }
                self.proceed(env);
            }
            Err(fault) => self.fail(&format!("{fault:?}"), env),
        }
    }

    fn appended(
        &mut self,
        ticket: AppendTicket,
        result: Result<nixfleet_proto::Position, AppendError>,
        env: &mut Environment,
    ) {
        if ticket.leadership != self.leadership {
            return;
        }
        let Leadership::Active(active) = &mut self.stage else {
            return;
        };
        let (leader, partition) = (&mut active.leader, ticket.partition);
        match result {
            Ok(position) if matches!(ticket.action, PlanAction::Barrier {}) => {
                leader.barrier_appended(partition, position);
            }
            Ok(position) => leader.appended(partition, position, ticket.action),
            Err(why) => {
                let reason = match why {
                    AppendError::Clock(_) => return self.fail(&why.to_string(), env),
                    AppendError::Unavailable(_) => HoldReason::Unavailable,
                    AppendError::Full(_) | AppendError::TooLarge { .. } => HoldReason::Refused,
                };
                env.invariants.counts.held_partitions += 1;
                env.trace(format_args!("nothing is planned in {partition}: {why}"));
                if let Err(ended) = leader.hold(partition, reason) {
                    return self.fail(&ended.to_string(), env);
                }
            }
        }
        if ticket.awaited == Awaited::No {
            return self.proceed(env);
        }
        active.appending -= 1;
        if active.appending == 0
            && let Some(planned) = active.planned.take()
        {
            let now = now(self.me, env);
            active
                .schedule
                .plan_made(now, planned.deadline, planned.is_capped);
        }
        self.proceed(env);
    }

    /// Applies pending outcomes, appends barriers and plans, as far as possible.
    fn proceed(&mut self, env: &mut Environment) {
        loop {
            let Leadership::Active(active) = &mut self.stage else {
                return;
            };
            if active.appending > 0 {
                return;
            }
            if let Err(why) = active.apply_inbox(self.me, env) {
                return self.fail(&why, env);
            }
            if self.leads && !env.is_clock_right(self.me) {
                return self.fail("its clock is off", env);
            }
            let now = now(self.me, env);
            if let Err(why) = active.leader.check_outcome_timeout(now.monotonic) {
                return self.fail(&why.to_string(), env);
            }
            let appends = match active.leader.stage() {
                Stage::Unfenced if !self.leads => return,
                Stage::Unfenced => {
                    let appends = active.leader.fence(now.wall);
                    let epoch = active.leader.epoch();
                    let name = env.processes[self.me.id].name();
                    env.trace(format_args!("{name} fences with epoch {epoch}"));
                    appends
                }
                Stage::Fencing => {
                    return active.wake_at(now.monotonic + INTERVALS.longest, self.me, env);
                }
                Stage::Leading => {
                    if active.polls.is_none() {
                        active.poll_releases(self.me, env);
                    }
                    if now.monotonic >= active.held_due {
                        active.held_due = now.monotonic + HELD_RETRY;
                        let barriers = active.leader.fence_held(now.wall);
                        if !barriers.is_empty() {
                            self.append(barriers, Awaited::No, env);
                            continue;
                        }
                    }
                    if now.monotonic < active.schedule.due() {
                        let mut due = active.schedule.due();
                        if !active.leader.held().is_empty() {
                            due = due.min(active.held_due);
                        }
                        return active.wake_at(due, self.me, env);
                    }
                    let planned = active.leader.plan(now.wall);
                    let turn = PlannedTurn {
                        deadline: planned.plan.next_deadline,
                        is_capped: planned.plan.is_capped,
                    };
                    if planned.appends.is_empty() {
                        active
                            .schedule
                            .plan_made(now, turn.deadline, turn.is_capped);
                    } else {
                        active.planned = Some(turn);
                    }
                    planned.appends
                }
            };
            self.append(appends, Awaited::Yes, env);
        }
    }

    fn append(&mut self, appends: Appends, awaited: Awaited, env: &mut Environment) {
        let Leadership::Active(active) = &mut self.stage else {
            return;
        };
        let wall = env.wall(self.me);
        for (partition, actions) in appends {
            for action in actions {
                let entry = active.leader.entry(partition, action.clone(), wall);
                let ticket = AppendTicket {
                    leadership: self.leadership,
                    partition,
                    action,
                    awaited,
                };
                active.appending += usize::from(awaited == Awaited::Yes);
                self.publisher.push(
                    partition,
                    (std::slice::from_ref(&entry), ticket),
                    self.me,
                    env,
                );
            }
        }
    }

    /// The leader of the current leadership.
    pub fn leader(&self) -> Option<&LeadershipCore> {
        match &self.stage {
            Leadership::Active(active) => Some(&active.leader),
            Leadership::Resting(_) | Leadership::Loading(_) => None,
        }
    }
}
