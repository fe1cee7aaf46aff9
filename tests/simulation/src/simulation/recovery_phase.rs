//! The phase after the faults: everything that can finish has to finish.

use std::time::Duration;

use nixfleet_proto::RolloutState;
use nixfleet_proto::subject::Partition;

use super::event::SimulationEvent;
use super::{BACKUP_EVERY, PROGRESS_CHECK_INTERVAL, RecoveryPhase, Simulation};
use crate::engine::{Rng, Time};
use crate::invariants::lost_tails::{covered, has_unresolved_loss};
use crate::invariants::progress::is_healed;
use crate::scenario::FaultRates;
use crate::services::ServiceProcess;
use crate::simulated_servers::LogId;

/// Longest time until everything has to be finished.
const TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long a run with a stopped partition goes on.
const UNRESOLVED_LOSS_TIME: Duration = Duration::from_secs(120);
/// How often the operator sends commands.
const OPERATE_EVERY: Duration = Duration::from_secs(40);

impl Simulation {
    /// Checks whether the current phase is over.
    pub(super) fn check_progress(&mut self) {
        self.env
            .schedule(PROGRESS_CHECK_INTERVAL, SimulationEvent::CheckProgress);
        let Some(recovery_phase) = self.recovery_phase else {
            let safety = Time::ZERO + self.scenario.shape.safety;
            let seconds = self.env.now.micros() / 1_000_000;
            if seconds % BACKUP_EVERY.as_secs() < PROGRESS_CHECK_INTERVAL.as_secs() {
                self.backups.push(self.env.database.back_up());
            }
            if self.env.now >= safety {
                self.begin_recovery();
            }
            return;
        };
        if let Some(at) = recovery_phase.operated_at
            && self.env.now >= at + OPERATE_EVERY
        {
            self.operate();
            self.recovery_phase = Some(RecoveryPhase {
                operated_at: Some(self.env.now),
                ..recovery_phase
            });
        }
        let unfinished = self.unfinished().map(|what| ("finishes", what));
        let unrecovered = || self.unrecovered().map(|what| ("progress", what));
        match unfinished.or_else(unrecovered) {
            None => self.finish(),
            Some((invariant, what)) if self.env.now >= recovery_phase.until => {
                self.env.invariants.record(invariant, Err(what));
            }
            Some(_) => {}
        }
    }

    /// Ends all faults. Then either a release on which nothing goes wrong is published, or an
    /// operator clears whatever is halted.
    fn begin_recovery(&mut self) {
        self.env.trace(format_args!("healing begins"));
        self.env.fault_rates = FaultRates {
            retry_order: self.env.fault_rates.retry_order,
            ..FaultRates::NONE
        };
        self.env.heartbeat_storm_until = self.env.now;
        self.env.full_input = None;
        self.env.row_loss_at_trim = None;
        self.env.broker_down_until = self.env.now;
        self.env.database_down_until = self.env.now;
        for status in &mut self.env.processes {
            status.heal();
        }
        let mut rng = Rng::new(self.scenario.seed, "heal");
        let shape = &self.scenario.shape;
        let goes_stale = shape
            .channels
            .iter()
            .any(|channel| channel.freshness < 1_440);
        // Hosts that failed before everything was lost run what is wanted, and are taken for converged:
        // their probes hold the next wave, and no operator finds anything to clear.
        let forgets = self.scenario.loses_both();
        let by_release = goes_stale || forgets || rng.chance(700);
        self.recovery_phase = Some(RecoveryPhase {
            begun: self.env.now,
            until: self.env.now + TIMEOUT,
            operated_at: (!by_release).then_some(self.env.now),
        });
        self.start_everything();
        if by_release || self.env.releases.is_empty() {
            self.publish_fault_free();
        } else {
            self.operate();
        }
    }

    /// Why the run is not finished.
    fn unfinished(&self) -> Option<String> {
        if self.has_any_unresolved_loss() {
            return self
                .unreported_loss()
                .or_else(|| self.growing_logs())
                .or_else(|| self.unfinished_logs());
        }
        let release = self.env.releases.last()?;
        let reference = &self.env.invariants.reference;
        for (channel, rollout_id) in &release.rollouts {
            let partition = Partition::of(channel, self.scenario.shape.partitions);
            let state = reference.state(partition);
            let Some(rollout) = state.and_then(|state| state.rollout(rollout_id)) else {
                return Some(format!("{rollout_id} was never opened"));
            };
            if rollout.record.state != RolloutState::Terminal {
                let hosts = rollout.hosts.values().map(|host| &host.record);
                let states: Vec<_> = hosts
                    .map(|record| format!("{} {:?}", record.hostname, record.state))
                    .collect();
                return Some(format!(
                    "{rollout_id} stays {:?} at wave {}: {}",
                    rollout.record.state,
                    rollout.record.current_wave,
                    states.join(", ")
                ));
            }
        }
        self.unfinished_logs()
    }

    fn has_unresolved_loss(&self, partition: Partition) -> bool {
        self.env.invariants.is_tail_lost()
            && has_unresolved_loss(partition, &self.env.broker, &self.env.database)
    }

    /// True when any partition is stopped by a lost tail; the planner then leads no partition.
    fn has_any_unresolved_loss(&self) -> bool {
        Partition::all(self.scenario.shape.partitions)
            .any(|partition| self.has_unresolved_loss(partition))
    }

    /// A partition that lost the end of a log without a service that reported it.
    fn unreported_loss(&self) -> Option<String> {
        let mut unresolved = Partition::all(self.scenario.shape.partitions)
            .filter(|partition| self.has_unresolved_loss(*partition));
        let unreported = unresolved.find(|partition| {
            // Written again to the same length, a log is known by the message that comes next: a
            // fetch that waits here does not look behind itself, as a reader does that reconnects.
            let is_as_long = self
                .env
                .broker
                .identity(LogId::Input(*partition))
                .is_some_and(|input| {
                    input.last_seq == covered(*partition, &self.env.broker, &self.env.database)
                });
            !is_as_long && !self.env.invariants.is_stopped(*partition)
        })?;
        Some(format!(
            "{unreported} lost the end of a log and no service reports it"
        ))
    }

    /// The shortened logs have to grow for a while before the run ends.
    fn growing_logs(&self) -> Option<String> {
        let begun = self.recovery_phase?.begun;
        (self.env.now < begun + UNRESOLVED_LOSS_TIME)
            .then(|| "the shortened logs are left to grow".to_owned())
    }

    /// A log whose end is not yet folded or applied.
    fn unfinished_logs(&self) -> Option<String> {
        for partition in Partition::all(self.scenario.shape.partitions) {
            if self.has_unresolved_loss(partition) {
                continue;
            }
            let input = self.env.broker.identity(LogId::Input(partition))?;
            let output = self.env.broker.identity(LogId::Output(partition))?;
            let cursor = self.env.database.cursor(partition);
            let applied = cursor.map_or(0, |cursor| cursor.out_seq);
            if applied < output.last_seq {
                return Some(format!(
                    "rows of {partition} are at {applied} of {}",
                    output.last_seq
                ));
            }
            let covered = cursor.and_then(|cursor| cursor.input);
            let is_covered = covered.map_or(0, |mark| mark.next().seq - 1) >= input.last_seq;
            if !is_covered && !self.is_owner_idle(partition, input.last_seq) {
                return Some(format!(
                    "{partition} is answered to {covered:?} of {}",
                    input.last_seq
                ));
            }
        }
        None
    }

    /// Why a partition does not count as recovered.
    fn unrecovered(&self) -> Option<String> {
        if self.has_any_unresolved_loss() {
            return None;
        }
        let mut partitions = Partition::all(self.scenario.shape.partitions);
        partitions.find_map(|partition| {
            let input = self.env.broker.usage(LogId::Input(partition))?;
            let output = self.env.broker.usage(LogId::Output(partition))?;
            let is_ready = self.processes.iter().flatten().any(
                |process| matches!(process, ServiceProcess::Reducer(owner) if owner.is_ready(partition)),
            );
            is_healed(partition, [input, output], is_ready).err()
        })
    }

    /// True when an owner has folded everything and only published outcomes were lost: it reads again with
    /// the next entry, and no planner sends one while a partition is stopped.
    fn is_owner_idle(&self, partition: Partition, last_seq: u64) -> bool {
        let mut lives = self.processes.iter().flatten().filter_map(|process| {
            let ServiceProcess::Reducer(reducer) = process else {
                return None;
            };
            reducer.live(partition)
        });
        self.has_any_unresolved_loss()
            && lives.any(|live| live.is_idle() && live.next().seq > last_seq)
    }

    /// Compares rows and owners with the reference a last time.
    fn finish(&mut self) {
        for partition in Partition::all(self.scenario.shape.partitions) {
            let snapshot = self.env.database.load(partition);
            self.env.invariants.compare_rows(partition, snapshot);
            for process in self.processes.iter().flatten() {
                if let ServiceProcess::Reducer(reducer) = process
                    && !self.has_unresolved_loss(partition)
                    && let Some(live) = reducer.live(partition).filter(|live| live.is_idle())
                {
                    let (state, next) = (live.state(), live.next());
                    self.env.invariants.owned(partition, state, next);
                }
            }
        }
        self.env.trace(format_args!("everything is finished"));
        self.is_over = true;
    }
}
