//! The service that archives both logs of a partition and trims them.
//!
//! Only the mark of the archive is stored, no archived messages.

mod archive;
mod trimming;

use std::collections::BTreeMap;

use nixfleet_proto::subject::Partition;

use super::lease_keys::{all_keys, partition_of};
use super::leases::{LeaseChange, Leases};
use crate::addressing::{Incarnation, Route, Service};
use crate::simulated_servers::{CallResult, LogId};
use crate::simulation::environment::Environment;
use archive::Archive;
use trimming::Trimming;

/// An eventlog process.
#[derive(Debug)]
pub struct Eventlog {
    me: Incarnation,
    leases: Leases,
    work: BTreeMap<Partition, Work>,
}

/// The work on one partition.
#[derive(Debug)]
struct Work {
    input: Archive,
    output: Archive,
    trimming: Trimming,
}

impl Eventlog {
    /// A process that just started.
    pub fn start(me: Incarnation, env: &mut Environment) -> Self {
        let keys = all_keys(env.shape.partitions);
        Self {
            me,
            leases: Leases::start(me, Service::Eventlog, keys, env),
            work: BTreeMap::new(),
        }
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Stops the process in an orderly way; true when it holds no lease.
    pub fn stop(&mut self, env: &mut Environment) -> bool {
        let (changes, is_ended) = self.leases.stop(env);
        self.change(changes, env);
        is_ended
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(
        &mut self,
        route: Route,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let me = self.me;
        match route {
            Route::Lease => {
                let changes = self.leases.take(call, reply, env);
                self.change(changes, env);
            }
            Route::InputPublisher(partition) => {
                if let Some(work) = self.work.get_mut(&partition) {
                    work.input.take(CallResult { call, reply }, me, env);
                }
            }
            Route::Reader(partition) => {
                if let Some(work) = self.work.get_mut(&partition) {
                    work.output.take(CallResult { call, reply }, me, env);
                }
            }
            Route::Work(partition) => {
                if let Some(work) = self.work.get_mut(&partition) {
                    work.trimming.take(CallResult { call, reply }, me, env);
                }
            }
            Route::LogSpace(_) | Route::Process => {}
        }
    }

    fn change(&mut self, changes: Vec<LeaseChange>, env: &mut Environment) {
        for change in changes {
            match change {
                LeaseChange::Acquired(key) => {
                    let (me, partition) = (self.me, partition_of(&key));
                    let (input, output) = (LogId::Input(partition), LogId::Output(partition));
                    let work = Work {
                        input: Archive::start(input, Route::InputPublisher(partition), me, env),
                        output: Archive::start(output, Route::Reader(partition), me, env),
                        trimming: Trimming::start(partition, me, env),
                    };
                    self.work.insert(partition, work);
                }
                // A transaction in flight goes on: the mark shows it to the next holder.
                LeaseChange::Lost(key) | LeaseChange::ReleaseRequested(key) => {
                    self.work.remove(&partition_of(&key));
                    let mut changes = self.leases.release(&key, env);
                    changes.extend(self.leases.want(&key, env));
                    self.change(changes, env);
                }
            }
        }
    }
}
