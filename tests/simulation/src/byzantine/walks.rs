//! The promise: a host switches and rolls back only to closures that it may trust, and for reasons of its
//! own.
//!
//! Restated from what was signed, what each agent was given, and what its machine did. Knows nothing of
//! how an agent decides.
//!
//! Source: docs/wire-protocol.md, what an agent believes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use nixfleet_agent::core::{Command, Input, Notification, RollbackOutcome, SwitchOutcome};
use nixfleet_proto::{ClosureHash, HostState, ProbeStatus, RolloutId, Timestamp};

use super::genuine_releases::GenuineRelease;

/// The result of a check.
pub type CheckResult = Result<(), String>;

/// Oldest manifest that a walk may begin with; the difference of clocks comes on top.
pub const AGE_MAX: TimeDelta = TimeDelta::seconds(600);
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(60);

/// What one host was given and did, since it has its disk.
#[derive(Debug, Default)]
pub struct Walks {
    host: String,
    /// The running closure, as the agent was told.
    told: Option<ClosureHash>,
    /// The manifest it was given last for each rollout that it asked for.
    given: BTreeMap<RolloutId, Given>,
    /// Signing time of the newest manifest with which it switched, by rollout.
    followed: BTreeMap<RolloutId, Timestamp>,
    walks: BTreeMap<RolloutId, Walk>,
}

/// A verified manifest, as the agent got it.
#[derive(Debug, Clone)]
struct Given {
    signed_at: Timestamp,
    /// The closure for this host; absent when it is another rollout's, or does not list the host.
    target: Option<ClosureHash>,
    /// When, by the host's clock.
    at: Timestamp,
}

/// A host in a rollout.
#[derive(Debug)]
struct Walk {
    target: ClosureHash,
    signed_at: Timestamp,
    /// What ran when it began, each time.
    before: BTreeSet<ClosureHash>,
    /// A switch is due: the walk began, or the agent restarted.
    may_switch: bool,
    /// The machine gave a reason to go back.
    has_failed: bool,
    furthest: HostState,
}

impl Walks {
    /// Of a host with a new disk.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            ..Self::default()
        }
    }

    /// The agent started.
    pub fn started(&mut self) {
        for walk in self.walks.values_mut() {
            walk.may_switch = true;
        }
    }

    /// The agent is about to get an input.
    pub fn input(&mut self, input: &Input) {
        let mut failed = None;
        if let Input::Started { current_closure } = input {
            self.told = Some(current_closure.clone());
        }
        if let Input::SwitchEnded {
            rollout_id,
            outcome,
        } = input
        {
            match outcome {
                SwitchOutcome::Completed {
                    observed_closure, ..
                } => self.told = Some(observed_closure.clone()),
                SwitchOutcome::Failed { .. } => failed = Some(rollout_id),
                SwitchOutcome::Deferred { .. } => {}
            }
        }
        if let Input::RollbackEnded { outcome, .. } = input
            && let RollbackOutcome::Completed {
                observed_closure, ..
            } = outcome
        {
            self.told = Some(observed_closure.clone());
        }
        if let Input::ProbeRan {
            rollout_id,
            reading,
            ..
        } = input
            && reading.status == ProbeStatus::Fail
        {
            failed = Some(rollout_id);
        }
        if let Some(walk) = failed.and_then(|rollout_id| self.walks.get_mut(rollout_id)) {
            walk.has_failed = true;
        }
    }

    /// The agent is about to get a verified manifest of `genuine` for a rollout it asked for.
    pub fn given(
        &mut self,
        asked: &RolloutId,
        found: &RolloutId,
        genuine: &GenuineRelease,
        at: Timestamp,
    ) {
        let target = genuine.targets.get(self.host.as_str());
        let target = target.filter(|target| target.rollout_id == *asked && found == asked);
        let given = Given {
            signed_at: genuine.release.signed_at,
            target: target.map(|target| target.closure.clone()),
            at,
        };
        self.given.insert(asked.clone(), given);
    }

    /// The agent returned a command, while its machine runs `running`.
    ///
    /// # Errors
    /// A walk began that no manifest allows.
    pub fn returned(&mut self, command: &Command, running: &ClosureHash) -> CheckResult {
        let Command::Notify(Notification::Transition { rollout_id, to, .. }) = command else {
            return Ok(());
        };
        if *to == HostState::Activating {
            self.begin(rollout_id, running)?;
        }
        if let Some(walk) = self.walks.get_mut(rollout_id) {
            walk.furthest = walk.furthest.max(*to);
        }
        Ok(())
    }

    fn begin(&mut self, rollout_id: &RolloutId, running: &ClosureHash) -> CheckResult {
        let host = &self.host;
        let given = self.given.get(rollout_id);
        let given = given.ok_or_else(|| {
            format!("{host} begins {rollout_id}, of which it verified no manifest")
        })?;
        let target = given.target.clone().ok_or_else(|| {
            format!("{host} begins {rollout_id} with a manifest that does not list it there")
        })?;
        if given.at - given.signed_at > AGE_MAX + CLOCK_SLACK {
            let age = (given.at - given.signed_at).num_seconds();
            return Err(format!(
                "{host} begins {rollout_id} with a manifest {age} s old"
            ));
        }
        let signed_at = given.signed_at;
        if let Some(newest) = self.newer_followed(rollout_id, signed_at) {
            return Err(format!(
                "{host} begins {rollout_id}, signed at {signed_at}, after it followed what was \
                 signed at {newest}"
            ));
        }
        let walk = self
            .walks
            .entry(rollout_id.clone())
            .or_insert_with(|| Walk {
                target: target.clone(),
                signed_at,
                before: BTreeSet::new(),
                may_switch: true,
                has_failed: false,
                furthest: HostState::Pending,
            });
        walk.signed_at = walk.signed_at.max(signed_at);
        walk.may_switch = true;
        walk.before.insert(running.clone());
        walk.before.extend(self.told.clone());
        Ok(())
    }

    /// The shell executes a command.
    ///
    /// # Errors
    /// A switch or rollback that breaks the promise.
    pub fn executed(&mut self, command: &Command) -> CheckResult {
        if let Command::Switch {
            rollout_id,
            closure,
        } = command
        {
            self.switch(rollout_id, closure.closure_hash())?;
        }
        if let Command::Rollback {
            rollout_id,
            closure,
        } = command
        {
            self.roll_back(rollout_id, closure.closure_hash())?;
        }
        Ok(())
    }

    /// The newest manifest that the host followed, when it is of another rollout and newer than this one. A
    /// renewed signature changes nothing of a rollout.
    fn newer_followed(&self, rollout_id: &RolloutId, signed_at: Timestamp) -> Option<Timestamp> {
        let others = self
            .followed
            .iter()
            .filter(|(other, _)| *other != rollout_id);
        let newest = others.map(|(_, signed_at)| *signed_at).max();
        newest.filter(|newest| *newest > signed_at)
    }

    fn switch(&mut self, rollout_id: &RolloutId, closure: &ClosureHash) -> CheckResult {
        let host = &self.host;
        let walk = self.walks.get(rollout_id).ok_or_else(|| {
            format!("{host} switches to {closure} for {rollout_id}, which it did not begin")
        })?;
        if *closure != walk.target {
            return Err(format!(
                "{host} switches to {closure} for {rollout_id}, whose manifest says {}",
                walk.target
            ));
        }
        let signed_at = walk.signed_at;
        if let Some(newest) = self.newer_followed(rollout_id, signed_at) {
            return Err(format!(
                "{host} switches back to {closure} of {rollout_id}, signed at {signed_at}, after it \
                 followed what was signed at {newest}"
            ));
        }
        if !walk.may_switch {
            return Err(format!(
                "{host} switches to {closure} for {rollout_id} once more, without a reason of its own"
            ));
        }
        if let Some(walk) = self.walks.get_mut(rollout_id) {
            walk.may_switch = false;
        }
        self.followed.insert(rollout_id.clone(), signed_at);
        Ok(())
    }

    fn roll_back(&mut self, rollout_id: &RolloutId, closure: &ClosureHash) -> CheckResult {
        let host = &self.host;
        let walk = self.walks.get(rollout_id).ok_or_else(|| {
            format!("{host} rolls back to {closure} for {rollout_id}, which it did not begin")
        })?;
        if !walk.before.contains(closure) {
            return Err(format!(
                "{host} rolls back to {closure} for {rollout_id}, which did not run before it"
            ));
        }
        if !walk.has_failed {
            return Err(format!(
                "{host} rolls back to {closure} for {rollout_id}, in which it did not fail"
            ));
        }
        Ok(())
    }

    /// The furthest state of each walk.
    pub fn furthest(&self) -> impl Iterator<Item = HostState> {
        self.walks.values().map(|walk| walk.furthest)
    }
}
