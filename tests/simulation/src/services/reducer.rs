//! The reducer: one worker per partition, which drives the real takeover, owner and recovery.

mod checkpoint_writer;
mod live_owner;
mod read_error;
mod takeover;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nixfleet_bus::{MessageIds, PublishError};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;
use nixfleet_reducer::{OwnershipEnd, Readiness};

use super::input_publisher::InputPublisher;
use super::lease_keys::{all_keys, partition_of};
use super::leases::{LeaseChange, Leases};
use crate::addressing::{Caller, Incarnation, Route, Service};
use crate::simulated_servers::{CallResult, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;
use live_owner::{AppendTicket, OwnerContext};
use takeover::{TakeoverDriver, TakeoverProgress};

pub use live_owner::LiveOwner;

/// Pause after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a fault that an operator has to repair.
const HALTED_PAUSE: Duration = Duration::from_secs(30);

/// A reducer process.
#[derive(Debug)]
pub struct Reducer {
    me: Incarnation,
    leases: Leases,
    publisher: InputPublisher<AppendTicket>,
    ids: Rc<MessageIds>,
    workers: BTreeMap<Partition, Worker>,
    ownerships: u64,
}

#[derive(Debug)]
struct Worker {
    work: Work,
    /// The streams are checked before the next takeover.
    must_check_layout: bool,
    readiness: Readiness,
}

#[derive(Debug)]
enum Work {
    /// Waits for the lease.
    Waiting,
    /// Waits before it requests the lease again.
    Resting(u64),
    /// Reads the cursors, then creates missing streams above them.
    Layout(u64),
    TakingOver(Box<TakeoverDriver>),
    Owning(Box<LiveOwner>),
}

impl Reducer {
    /// A reducer that just started.
    pub fn start(me: Incarnation, env: &mut Environment) -> Self {
        let name = env.processes[me.id].name();
        let ids = Rc::new(MessageIds::new(&name, &me.life.to_string()));
        let partitions = env.shape.partitions;
        let worker = || Worker {
            work: Work::Waiting,
            must_check_layout: true,
            readiness: Readiness::default(),
        };
        Self {
            me,
            leases: Leases::start(me, Service::Reducer, all_keys(partitions), env),
            publisher: InputPublisher::new(partitions, Rc::clone(&ids)),
            ids,
            workers: Partition::all(partitions).map(|p| (p, worker())).collect(),
            ownerships: 0,
        }
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The owner of a partition, when it is in this process.
    pub fn live(&self, partition: Partition) -> Option<&LiveOwner> {
        match &self.workers.get(&partition)?.work {
            Work::Owning(live) => Some(live),
            Work::Waiting | Work::Resting(_) => None,
            Work::Layout(_) | Work::TakingOver(_) => None,
        }
    }

    /// True when this process owns the partition and is ready.
    pub fn is_ready(&self, partition: Partition) -> bool {
        let worker = self.workers.get(&partition);
        let readiness = worker.map(|worker| worker.readiness.check());
        self.live(partition).is_some() && matches!(readiness, Some(Ok(())))
    }

    /// Stops the process in an orderly way; true when it holds no lease.
    pub fn stop(&mut self, env: &mut Environment) -> bool {
        let (changes, is_ended) = self.leases.stop(env);
        self.change(changes, env);
        is_ended
    }

    /// Processes a heartbeat that a gateway forwarded.
    pub fn heartbeat(
        &mut self,
        partition: Partition,
        heartbeat: OwnerHeartbeat,
        asked: Caller,
        env: &mut Environment,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        if let Work::Owning(live) = &mut worker.work {
            let mut context = OwnerContext {
                me: self.me,
                publisher: &mut self.publisher,
                ids: &self.ids,
                readiness: &mut worker.readiness,
                env,
            };
            live.heartbeat(heartbeat, asked, &mut context);
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
                self.appended(partition, CallResult { call, reply }, env)
            }
            Route::Reader(partition) => self.read(partition, CallResult { call, reply }, env),
            Route::Work(partition) => self.work(partition, CallResult { call, reply }, env),
            Route::LogSpace(_) | Route::Process => {}
        }
    }

    fn change(&mut self, changes: Vec<LeaseChange>, env: &mut Environment) {
        for change in changes {
            match change {
                LeaseChange::Acquired(key) => self.begin(partition_of(&key), env),
                LeaseChange::ReleaseRequested(key) | LeaseChange::Lost(key) => {
                    self.stop_work(partition_of(&key), env);
                }
            }
        }
    }

    /// Ends the work in an orderly way: after the result of a frame in flight.
    fn stop_work(&mut self, partition: Partition, env: &mut Environment) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        match &mut worker.work {
            Work::Owning(live) => {
                if live.stop() {
                    self.end(partition, &OwnershipEnd::Released, env);
                }
            }
            Work::Layout(_) | Work::TakingOver(_) => {
                self.end(partition, &OwnershipEnd::Released, env);
            }
            Work::Waiting | Work::Resting(_) => {}
        }
    }

    fn set(&mut self, partition: Partition, work: Work) {
        if let Some(worker) = self.workers.get_mut(&partition) {
            worker.work = work;
        }
    }

    fn begin(&mut self, partition: Partition, env: &mut Environment) {
        let Some(worker) = self.workers.get(&partition) else {
            return;
        };
        if worker.must_check_layout {
            let call = env.call(self.me, Route::Work(partition), ServerRequest::Cursors);
            return self.set(partition, Work::Layout(call));
        }
        match TakeoverDriver::start(partition, &self.ids, self.me, env) {
            Ok(takeover_driver) => self.set(partition, Work::TakingOver(Box::new(takeover_driver))),
            Err(ended) => self.end(partition, &ended, env),
        }
    }

    /// Ends an ownership: releases the lease, and requests it again after a pause.
    fn end(&mut self, partition: Partition, ended: &OwnershipEnd, env: &mut Environment) {
        let me = self.me;
        let name = env.processes[me.id].name();
        env.trace(format_args!("{name} {partition} ends: {ended}"));
        env.owners
            .entry(partition)
            .or_default()
            .retain(|o| *o != me);
        let key = partition.to_string();
        let (pause, changes) = match ended {
            OwnershipEnd::Released | OwnershipEnd::Fenced => {
                (Duration::ZERO, self.leases.release(&key, env))
            }
            OwnershipEnd::Failed(_) => (FAILED_PAUSE, self.leases.give_up(&key, env)),
            OwnershipEnd::Halted(_) => {
                env.invariants.stopped_with_error(partition);
                (HALTED_PAUSE, self.leases.give_up(&key, env))
            }
        };
        let append_failed =
            matches!(ended, OwnershipEnd::Failed(error) if error.is::<PublishError>());
        env.invariants.ownership_ended(me, partition, append_failed);
        if let Some(worker) = self.workers.get_mut(&partition) {
            worker.readiness.ownership_ended(ended);
            worker.must_check_layout = matches!(ended, OwnershipEnd::Failed(_));
            worker.work = Work::Resting(env.start_timer(me, Route::Work(partition), pause));
        }
        self.change(changes, env);
    }

    fn work(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        match &mut worker.work {
            Work::Resting(timer) if *timer == call => {
                worker.work = Work::Waiting;
                let changes = self.leases.want(&partition.to_string(), env);
                self.change(changes, env);
            }
            Work::Layout(asked) if *asked == call => match reply {
                Some(ServerReply::Cursors(recorded)) => {
                    let request = ServerRequest::EnsureLayout(recorded);
                    *asked = env.call(self.me, Route::Work(partition), request);
                }
                Some(ServerReply::LayoutReady) => {
                    worker.must_check_layout = false;
                    self.begin(partition, env);
                }
                _ => {
                    let error = std::io::Error::other("the streams are not known");
                    self.end(partition, &OwnershipEnd::failed(error), env);
                }
            },
            Work::TakingOver(_) => {
                self.takeover_driver(partition, env, |takeover_driver, ids, me, env| {
                    takeover_driver.take(CallResult { call, reply }, ids, me, env)
                });
            }
            Work::Owning(_) => self.live_on(partition, env, |live, context| {
                live.take(CallResult { call, reply }, context)
            }),
            Work::Waiting | Work::Resting(_) | Work::Layout(_) => {}
        }
    }

    fn read(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        match &worker.work {
            Work::TakingOver(_) => {
                self.takeover_driver(partition, env, |takeover_driver, ids, me, env| {
                    takeover_driver.read(CallResult { call, reply }, ids, me, env)
                })
            }
            Work::Owning(_) => self.live_on(partition, env, |live, context| {
                live.read(CallResult { call, reply }, context)
            }),
            Work::Waiting | Work::Resting(_) | Work::Layout(_) => {}
        }
    }

    fn takeover_driver(
        &mut self,
        partition: Partition,
        env: &mut Environment,
        step: impl FnOnce(
            TakeoverDriver,
            &MessageIds,
            Incarnation,
            &mut Environment,
        ) -> Result<(TakeoverDriver, TakeoverProgress), OwnershipEnd>,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        let Work::TakingOver(takeover_driver) = std::mem::replace(&mut worker.work, Work::Waiting)
        else {
            return;
        };
        match step(*takeover_driver, &self.ids, self.me, env) {
            Ok((takeover_driver, TakeoverProgress::Waits)) => {
                self.set(partition, Work::TakingOver(Box::new(takeover_driver)));
            }
            Ok((takeover_driver, TakeoverProgress::Done(taken, writer))) => {
                self.ownerships += 1;
                if env
                    .invariants
                    .lost_at
                    .is_none_or(|lost| takeover_driver.begun > lost)
                {
                    env.invariants
                        .owned(partition, &taken.state, taken.start.next);
                }
                let mut context = OwnerContext {
                    me: self.me,
                    publisher: &mut self.publisher,
                    ids: &self.ids,
                    readiness: &mut worker.readiness,
                    env,
                };
                let place = (partition, self.ownerships);
                let live = LiveOwner::start(place, writer, *taken, &mut context);
                worker.work = Work::Owning(Box::new(live));
                if let Some(output) = env.broker.usage(LogId::Output(partition))
                    && worker.readiness.check().is_ok()
                {
                    env.invariants.reported_ready(self.me, partition, &output);
                }
                env.owners.entry(partition).or_default().push(self.me);
            }
            Err(ended) => self.end(partition, &ended, env),
        }
    }

    fn live_on(
        &mut self,
        partition: Partition,
        env: &mut Environment,
        step: impl FnOnce(&mut LiveOwner, &mut OwnerContext<'_>) -> Result<(), OwnershipEnd>,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        let Work::Owning(live) = &mut worker.work else {
            return;
        };
        let mut context = OwnerContext {
            me: self.me,
            publisher: &mut self.publisher,
            ids: &self.ids,
            readiness: &mut worker.readiness,
            env,
        };
        if let Err(ended) = step(live, &mut context) {
            self.end(partition, &ended, env);
        }
    }

    fn appended(&mut self, partition: Partition, answer: CallResult, env: &mut Environment) {
        let answers = self.publisher.take(partition, answer, self.me, env);
        for (ticket, result) in answers {
            self.live_on(partition, env, |live, context| {
                live.appended(ticket, result.ok(), context);
                Ok(())
            });
        }
    }
}
