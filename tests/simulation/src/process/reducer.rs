//! The reducer: one worker per partition, around the real takeover, owner and recovery.

mod acquire;
mod checkpoints;
mod live;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nixfleet_bus::{MessageIds, PublishError};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;
use nixfleet_reducer::{OwnershipEnd, Readiness};

use super::lease::{Change, Leases};
use super::publisher::Publisher;
use super::reader::ReadFault;
use super::{all_keys, partition_of};
use crate::model::{Log, Op, Reply};
use crate::world::env::Env;
use crate::world::event::{Alive, Caller, Route};
use crate::world::status::Service;
use acquire::{Acquire, Progress};
use live::With;

pub use live::Live;

/// Pause after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Pause after what somebody has to mend.
const HALTED_PAUSE: Duration = Duration::from_secs(30);

/// A reducer process.
#[derive(Debug)]
pub struct Reducer {
    me: Alive,
    leases: Leases,
    publisher: Publisher<Ticket>,
    ids: Rc<MessageIds>,
    workers: BTreeMap<Partition, Worker>,
    ownerships: u64,
}

/// What an appended entry was for.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    ownership: u64,
}

#[derive(Debug)]
struct Worker {
    work: Work,
    /// The streams are looked at before the next takeover.
    is_suspicious: bool,
    readiness: Readiness,
}

#[derive(Debug)]
enum Work {
    /// Waits for the lease.
    Waiting,
    /// Waits before it wants the lease again.
    Resting(u64),
    /// Reads the cursors, then creates what is missing above them.
    Layout(u64),
    Acquiring(Box<Acquire>),
    Living(Box<Live>),
}

/// A reader that cannot go on, as the shell judges it.
fn read_fault(fault: ReadFault) -> OwnershipEnd {
    let error = std::io::Error::other(format!("{fault:?}"));
    match fault {
        ReadFault::Missing | ReadFault::Replaced => OwnershipEnd::failed(error),
        ReadFault::Trimmed(_) | ReadFault::Gap | ReadFault::Regressed | ReadFault::Rewritten => {
            OwnershipEnd::halted(error)
        }
    }
}

impl Reducer {
    /// A reducer that just started.
    pub fn start(me: Alive, env: &mut Env) -> Self {
        let name = env.processes[me.id].name();
        let ids = Rc::new(MessageIds::new(&name, &me.life.to_string()));
        let partitions = env.shape.partitions;
        let worker = || Worker {
            work: Work::Waiting,
            is_suspicious: true,
            readiness: Readiness::default(),
        };
        Self {
            me,
            leases: Leases::start(me, Service::Reducer, all_keys(partitions), env),
            publisher: Publisher::new(partitions, Rc::clone(&ids)),
            ids,
            workers: Partition::all(partitions).map(|p| (p, worker())).collect(),
            ownerships: 0,
        }
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The owner of a partition, when this process lives as one.
    pub fn live(&self, partition: Partition) -> Option<&Live> {
        match &self.workers.get(&partition)?.work {
            Work::Living(live) => Some(live),
            Work::Waiting | Work::Resting(_) => None,
            Work::Layout(_) | Work::Acquiring(_) => None,
        }
    }

    /// True when this process owns the partition and is ready.
    pub fn is_ready(&self, partition: Partition) -> bool {
        let worker = self.workers.get(&partition);
        let readiness = worker.map(|worker| worker.readiness.check());
        self.live(partition).is_some() && matches!(readiness, Some(Ok(())))
    }

    /// Ends orderly; true when nothing is held any more.
    pub fn stop(&mut self, env: &mut Env) -> bool {
        let (changes, is_ended) = self.leases.stop(env);
        self.change(changes, env);
        is_ended
    }

    /// Takes a heartbeat that a gateway passed on.
    pub fn heartbeat(
        &mut self,
        partition: Partition,
        heartbeat: OwnerHeartbeat,
        asked: Caller,
        env: &mut Env,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        if let Work::Living(live) = &mut worker.work {
            let mut with = With {
                me: self.me,
                publisher: &mut self.publisher,
                ids: &self.ids,
                readiness: &mut worker.readiness,
                env,
            };
            live.heartbeat(heartbeat, asked, &mut with);
        }
    }

    /// Takes an answer of a server, or that none came, or a timer.
    pub fn take(&mut self, route: Route, (call, reply): (u64, Option<Reply>), env: &mut Env) {
        match route {
            Route::Lease => {
                let changes = self.leases.take(call, reply, env);
                self.change(changes, env);
            }
            Route::Lane(partition) => self.appended(partition, (call, reply), env),
            Route::Reader(partition) => self.read(partition, (call, reply), env),
            Route::Work(partition) => self.work(partition, (call, reply), env),
            Route::Aside(_) | Route::Whole => {}
        }
    }

    fn change(&mut self, changes: Vec<Change>, env: &mut Env) {
        for change in changes {
            match change {
                Change::Gained(key) => self.begin(partition_of(&key), env),
                Change::Recalled(key) | Change::Lost(key) => {
                    self.stop_work(partition_of(&key), env);
                }
            }
        }
    }

    /// Work ends in good order: a frame in flight arrives first.
    fn stop_work(&mut self, partition: Partition, env: &mut Env) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        match &mut worker.work {
            Work::Living(live) => {
                if live.stop() {
                    self.end(partition, &OwnershipEnd::Released, env);
                }
            }
            Work::Layout(_) | Work::Acquiring(_) => {
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

    fn begin(&mut self, partition: Partition, env: &mut Env) {
        let Some(worker) = self.workers.get(&partition) else {
            return;
        };
        if worker.is_suspicious {
            let call = env.call(self.me, Route::Work(partition), Op::Cursors);
            return self.set(partition, Work::Layout(call));
        }
        match Acquire::start(partition, &self.ids, self.me, env) {
            Ok(acquire) => self.set(partition, Work::Acquiring(Box::new(acquire))),
            Err(ended) => self.end(partition, &ended, env),
        }
    }

    /// An ownership ended: the lease is given back, and wanted again after a pause.
    fn end(&mut self, partition: Partition, ended: &OwnershipEnd, env: &mut Env) {
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
                env.checks.stopped_loudly(partition);
                (HALTED_PAUSE, self.leases.give_up(&key, env))
            }
        };
        let for_want = matches!(ended, OwnershipEnd::Failed(error) if error.is::<PublishError>());
        env.checks.ownership_ended(me, partition, for_want);
        if let Some(worker) = self.workers.get_mut(&partition) {
            worker.readiness.ownership_ended(ended);
            worker.is_suspicious = matches!(ended, OwnershipEnd::Failed(_));
            worker.work = Work::Resting(env.timer(me, Route::Work(partition), pause));
        }
        self.change(changes, env);
    }

    fn work(&mut self, partition: Partition, (call, reply): (u64, Option<Reply>), env: &mut Env) {
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
                Some(Reply::Cursors(remembered)) => {
                    let op = Op::EnsureLayout(remembered);
                    *asked = env.call(self.me, Route::Work(partition), op);
                }
                Some(Reply::LayoutReady) => {
                    worker.is_suspicious = false;
                    self.begin(partition, env);
                }
                _ => {
                    let error = std::io::Error::other("the layout is not known");
                    self.end(partition, &OwnershipEnd::failed(error), env);
                }
            },
            Work::Acquiring(_) => {
                self.acquire(partition, env, |acquire, ids, me, env| {
                    acquire.take((call, reply), ids, me, env)
                });
            }
            Work::Living(_) => {
                self.live_on(partition, env, |live, with| live.take((call, reply), with))
            }
            Work::Waiting | Work::Resting(_) | Work::Layout(_) => {}
        }
    }

    fn read(&mut self, partition: Partition, (call, reply): (u64, Option<Reply>), env: &mut Env) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        match &worker.work {
            Work::Acquiring(_) => self.acquire(partition, env, |acquire, ids, me, env| {
                acquire.read((call, reply), ids, me, env)
            }),
            Work::Living(_) => {
                self.live_on(partition, env, |live, with| live.read((call, reply), with))
            }
            Work::Waiting | Work::Resting(_) | Work::Layout(_) => {}
        }
    }

    fn acquire(
        &mut self,
        partition: Partition,
        env: &mut Env,
        step: impl FnOnce(
            Acquire,
            &MessageIds,
            Alive,
            &mut Env,
        ) -> Result<(Acquire, Progress), OwnershipEnd>,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        let Work::Acquiring(acquire) = std::mem::replace(&mut worker.work, Work::Waiting) else {
            return;
        };
        match step(*acquire, &self.ids, self.me, env) {
            Ok((acquire, Progress::Waits)) => {
                self.set(partition, Work::Acquiring(Box::new(acquire)));
            }
            Ok((acquire, Progress::Done(taken, writer))) => {
                self.ownerships += 1;
                if env.checks.lost_at.is_none_or(|lost| acquire.begun > lost) {
                    env.checks.owned(partition, &taken.state, taken.start.next);
                }
                let mut with = With {
                    me: self.me,
                    publisher: &mut self.publisher,
                    ids: &self.ids,
                    readiness: &mut worker.readiness,
                    env,
                };
                let place = (partition, self.ownerships);
                let live = Live::start(place, writer, *taken, &mut with);
                worker.work = Work::Living(Box::new(live));
                if let Some(output) = env.broker.fill(Log::Output(partition))
                    && worker.readiness.check().is_ok()
                {
                    env.checks.says_ready(self.me, partition, &output);
                }
                env.owners.entry(partition).or_default().push(self.me);
            }
            Err(ended) => self.end(partition, &ended, env),
        }
    }

    fn live_on(
        &mut self,
        partition: Partition,
        env: &mut Env,
        step: impl FnOnce(&mut Live, &mut With<'_>) -> Result<(), OwnershipEnd>,
    ) {
        let Some(worker) = self.workers.get_mut(&partition) else {
            return;
        };
        let Work::Living(live) = &mut worker.work else {
            return;
        };
        let mut with = With {
            me: self.me,
            publisher: &mut self.publisher,
            ids: &self.ids,
            readiness: &mut worker.readiness,
            env,
        };
        if let Err(ended) = step(live, &mut with) {
            self.end(partition, &ended, env);
        }
    }

    fn appended(&mut self, partition: Partition, answer: (u64, Option<Reply>), env: &mut Env) {
        let answers = self.publisher.take(partition, answer, self.me, env);
        for (ticket, result) in answers {
            self.live_on(partition, env, |live, with| {
                live.appended(ticket, result.ok(), with);
                Ok(())
            });
        }
    }
}
