//! Begins and ends the faults of the schedule.

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, InputFrame, LAYOUT_VERSION};

use super::Simulation;
use super::checkpoint_loss::damage;
use super::event::{SimulatedHostEvent, SimulationEvent};
use super::process_status::PlannedCrash;
use super::servers::stored;
use crate::addressing::{Caller, HostId, ProcessId, Route, Service};
use crate::engine::Time;
use crate::scenario::{FaultKind, RowLoss, StalledConsumer, TailLoss};
use crate::services::leases::WAKE_CALL;
use crate::simulated_console;
use crate::simulated_servers::stream::NewMessage;
use crate::simulated_servers::{Connection, LogId};

impl Simulation {
    fn process(&self, number: usize) -> ProcessId {
        number % self.processes.len()
    }

    fn host(&self, number: usize) -> HostId {
        number % self.hosts.len()
    }

    #[expect(clippy::too_many_lines, reason = "one arm per fault, read as a whole")]
    pub(super) fn fault(&mut self, index: usize) {
        if self.recovery_phase.is_some() {
            return;
        }
        let fault = self.scenario.faults[index].clone();
        self.env.trace(format_args!("fault {index}: {fault}"));
        self.env
            .schedule(fault.lasts, SimulationEvent::FaultEnds(index));
        let until = self.env.now + fault.lasts;
        match fault.kind {
            FaultKind::KillProcess(number) => {
                let id = self.process(number);
                let alive = self.env.processes[id].incarnation(id);
                self.kill(alive);
            }
            FaultKind::StopProcess(number) => self.stop(self.process(number)),
            FaultKind::FreezeProcess(number) => {
                let id = self.process(number);
                self.env.processes[id].frozen_until = until;
            }
            FaultKind::CrashProcess {
                process,
                point,
                skipped,
            } => {
                let id = self.process(process);
                self.env.processes[id].planned_crash = Some(PlannedCrash { point, skipped });
            }
            FaultKind::DisconnectBroker(number) => {
                let id = self.process(number);
                for server in [
                    Connection::Publishing,
                    Connection::Reading,
                    Connection::Leasing,
                ] {
                    self.env.processes[id].cut(server, until);
                }
            }
            FaultKind::DisconnectDatabase(number) => {
                let id = self.process(number);
                self.env.processes[id].cut(Connection::Database, until);
            }
            FaultKind::RestartBroker => {
                self.env.broker_down_until = until;
                self.env.broker.disconnect();
            }
            FaultKind::RestartDatabase => self.env.database_down_until = until,
            FaultKind::IgnoreLeases(number) => self.ignore_leases(number, until),
            FaultKind::IgnoreLeasesAndDelayReads(number) => {
                let id = self.process(number);
                self.env.processes[id].lag(Connection::Reading, until);
                self.ignore_leases(number, until);
            }
            FaultKind::SlowWrites(number) => {
                let service = self.env.processes[self.process(number)].service;
                self.lag(service, until);
            }
            FaultKind::CompetingPlanners => {
                for id in self.of_service(Service::Applier) {
                    self.env.processes[id].frozen_until = until;
                }
                for id in self.of_service(Service::Planner) {
                    self.ignore_leases(id, until);
                }
            }
            FaultKind::HeartbeatStorm => {
                self.env.heartbeat_storm_until = until;
                self.lag(Service::Reducer, until);
            }
            FaultKind::FillInputLog(number) => {
                let partition = Partition::new(number % self.scenario.shape.partitions);
                self.env.full_input = Some((partition, until));
            }
            FaultKind::LoseLeases => {
                self.env.broker.leases.lose_everything();
                self.env.invariants.bucket_lost(self.env.now);
            }
            FaultKind::SkewProcessClock(number, millis) => {
                let id = self.process(number);
                self.env.processes[id].skew_ms = millis;
            }
            FaultKind::ForgetMessageIds => self.env.broker.forget_ids(),
            FaultKind::StoreUnreadableMessage(number) => self.poison(number),
            FaultKind::StoreMisdatedEntry(number, millis) => self.misdate(number, millis),
            FaultKind::OperatorCommands => self.operate(),
            FaultKind::SkewHostClock(number, millis) => {
                let id = self.host(number);
                self.hosts[id].skew_ms = millis;
            }
            FaultKind::CrashAgent(number) => {
                let id = self.host(number);
                self.hosts[id].crash(&mut self.env);
            }
            FaultKind::DisconnectHost(number) => {
                let id = self.host(number);
                self.hosts[id].online = false;
            }
            FaultKind::ReportFalseClosures(number) => {
                let id = self.host(number);
                self.hosts[id].false_closures_until = until + fault.lasts;
            }
            FaultKind::LoseAgentState(number) => {
                let id = self.host(number);
                self.hosts[id].crash(&mut self.env);
                self.hosts[id].forget();
            }
            FaultKind::StallConsumer(consumer) => {
                let service = match consumer {
                    StalledConsumer::Archive => Service::Eventlog,
                    StalledConsumer::Applier => Service::Applier,
                };
                for id in self.of_service(service) {
                    self.env.processes[id].frozen_until = until;
                }
            }
            FaultKind::DamageCheckpoint(number, loss) => {
                let partition = Partition::new(number % self.scenario.shape.partitions);
                damage(partition, loss, &mut self.env);
            }
            FaultKind::LoseRows(loss) if loss.is_at_trim => self.env.row_loss_at_trim = Some(loss),
            FaultKind::LoseRows(loss) => self.lose_rows(loss),
            FaultKind::LoseLogTails(tails) => self.lose_tails(tails, until),
            FaultKind::LoseBrokerAndDatabase => self.lose_both(until),
        }
    }

    pub(super) fn fault_over(&mut self, index: usize) {
        if self.recovery_phase.is_some() {
            return;
        }
        match self.scenario.faults[index].kind {
            FaultKind::KillProcess(number)
            | FaultKind::StopProcess(number)
            | FaultKind::CrashProcess {
                process: number, ..
            } => {
                let id = self.process(number);
                self.start(id);
            }
            FaultKind::SkewProcessClock(number, _) => {
                let id = self.process(number);
                self.env.processes[id].skew_ms = 0;
            }
            FaultKind::SkewHostClock(number, _) => {
                let id = self.host(number);
                self.hosts[id].skew_ms = 0;
            }
            FaultKind::CrashAgent(number) | FaultKind::LoseAgentState(number) => {
                let id = self.host(number);
                self.hosts[id].take(SimulatedHostEvent::Start { reboot: false }, &mut self.env);
            }
            FaultKind::DisconnectHost(number) => {
                let id = self.host(number);
                self.hosts[id].online = true;
            }
            FaultKind::FreezeProcess(_)
            | FaultKind::StoreMisdatedEntry(..)
            | FaultKind::DisconnectBroker(_)
            | FaultKind::DisconnectDatabase(_)
            | FaultKind::RestartBroker
            | FaultKind::RestartDatabase
            | FaultKind::IgnoreLeases(_)
            | FaultKind::IgnoreLeasesAndDelayReads(_)
            | FaultKind::SlowWrites(_)
            | FaultKind::CompetingPlanners
            | FaultKind::HeartbeatStorm
            | FaultKind::LoseLeases
            | FaultKind::FillInputLog(_)
            | FaultKind::ReportFalseClosures(_)
            | FaultKind::ForgetMessageIds
            | FaultKind::StoreUnreadableMessage(_)
            | FaultKind::OperatorCommands
            | FaultKind::StallConsumer(_)
            | FaultKind::DamageCheckpoint(..)
            | FaultKind::LoseRows(_)
            | FaultKind::LoseLogTails(_)
            | FaultKind::LoseBrokerAndDatabase => {}
        }
    }

    fn of_service(&self, service: Service) -> Vec<ProcessId> {
        let statuses = self.env.processes.iter().enumerate();
        let found = statuses.filter(|(_, status)| status.service == service);
        found.map(|(id, _)| id).collect()
    }

    /// Slows all writes of a service down.
    fn lag(&mut self, service: Service, until: Time) {
        for id in self.of_service(service) {
            for server in [Connection::Publishing, Connection::Database] {
                self.env.processes[id].lag(server, until);
            }
        }
    }

    /// Makes a process ignore its leases; it is woken at the begin and at the end.
    fn ignore_leases(&mut self, number: usize, until: Time) {
        let id = self.process(number);
        self.env.processes[id].ignores_leases_until = until;
        let caller = Caller {
            process: self.env.processes[id].incarnation(id),
            route: Route::Lease,
            call: WAKE_CALL,
        };
        self.env
            .schedule_at(self.env.now, SimulationEvent::TimerExpires(caller));
        self.env
            .schedule_at(until, SimulationEvent::TimerExpires(caller));
    }

    /// Publishes an entry that does nothing but have a wrong time.
    fn misdate(&mut self, number: u16, millis: i64) {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: "stable@misdated".parse().expect("a rollout id"),
            hostname: "nobody".into(),
            current_closure: "unknown".into(),
        };
        let partition = Partition::new(number % self.scenario.shape.partitions);
        let subject = self.env.broker.names().input(partition, &body);
        let entry = Entry::new(self.env.now.wall(millis), body);
        self.publish_foreign(partition, subject, frame_of(entry));
    }

    /// Publishes a message that cannot be decoded, and commands that no console signed.
    fn poison(&mut self, number: u16) {
        let partition = Partition::new(number % self.scenario.shape.partitions);
        self.publish_foreign(
            partition,
            "fleet.in.poison".to_owned(),
            bytes::Bytes::from_static(b"{\"v\":1,\"entries\":[17]}"),
        );
        for command in self.commands() {
            let origin = simulated_console::forged_origin();
            let body = EntryBody::Operator { command, origin };
            let Some(channel) = body.channel() else {
                continue;
            };
            let partition = Partition::of(&channel, self.scenario.shape.partitions);
            let subject = self.env.broker.names().input(partition, &body);
            let entry = Entry::new(self.env.now.wall(0), body);
            self.publish_foreign(partition, subject, frame_of(entry));
        }
    }

    /// Publishes a message that no service sent.
    fn publish_foreign(&mut self, partition: Partition, subject: String, payload: bytes::Bytes) {
        let log = LogId::Input(partition);
        let message = NewMessage {
            msg_id: format!("foreign-{subject}-{}", self.env.now.micros()),
            subject,
            payload,
            fence: None,
        };
        let now = self.env.now.wall(0);
        if let Some(Ok(ack)) = self.env.broker.publish(log, message, now) {
            stored(&mut self.env, log, ack.seq);
        }
    }

    /// Replaces the database by a backup or an empty one.
    pub(super) fn lose_rows(&mut self, loss: RowLoss) {
        let backup = loss.is_restored.then(|| self.backups.first()).flatten();
        let backup = backup.cloned().unwrap_or_default();
        self.env.trace(format_args!("rows are lost"));
        self.env.database.restore(&backup);
        if let Some(loss) = loss.checkpoints {
            for partition in Partition::all(self.scenario.shape.partitions) {
                damage(partition, loss, &mut self.env);
            }
        }
    }

    /// Replaces broker and database by empty ones.
    fn lose_both(&mut self, until: Time) {
        self.env.broker_down_until = until;
        self.env.database_down_until = until;
        self.env.broker.lose_everything();
        self.env.database.restore(&Default::default());
        self.backups.clear();
        self.env.invariants.everything_lost(self.env.now);
    }

    /// The broker restarts without the last messages, and its sequences are used again.
    fn lose_tails(&mut self, tails: TailLoss, until: Time) {
        self.env.broker_down_until = until;
        self.env.broker.disconnect();
        let partitions = self.scenario.shape.partitions;
        let only = tails.partition.map(|number| number % partitions);
        for partition in Partition::all(partitions) {
            if only.is_some_and(|only| only != partition.number()) {
                continue;
            }
            let (env, outputs) = (&mut self.env, LogId::Output(partition));
            let input = env.broker.lose_tail(LogId::Input(partition), tails.input);
            let output = env.broker.lose_tail(outputs, tails.output);
            env.trace(format_args!(
                "{partition} loses {} inputs and {} outputs",
                input.len(),
                output.len()
            ));
            env.invariants
                .tail_lost(partition, input, (&env.broker, &env.database));
        }
    }
}

/// A frame with one entry.
fn frame_of(entry: Entry) -> bytes::Bytes {
    let frame = InputFrame {
        v: LAYOUT_VERSION,
        entries: vec![entry],
    };
    let payload = serde_json::to_vec(&frame).expect("a frame has text keys only");
    payload.into()
}
