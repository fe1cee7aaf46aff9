//! Replies to heartbeats: true and false records of the host.

use nixfleet_proto::wire::{HeartbeatReply, HeartbeatRequest, HostSnapshot};
use nixfleet_proto::{HostState, Hostname, RolloutId};

use super::{HostileControlPlane, false_values};
use crate::byzantine::answer::{Answer, ReplyText};
use crate::byzantine::coverage::Falsehood;
use crate::byzantine::genuine_releases::AnswerContext;

/// Snapshots of a reply that is only large.
const FLOOD: usize = 600;

impl HostileControlPlane {
    /// Replies to a heartbeat.
    pub fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        at: AnswerContext<'_>,
    ) -> Answer<ReplyText> {
        let host = &request.hostname;
        let snapshots = self.snapshots(host, at);
        self.sent_snapshots.insert(host.clone(), snapshots.clone());
        let reply = HeartbeatReply {
            received_at: request.at,
            bootstrap_rollouts: snapshots,
        };
        let text = serde_json::to_string(&reply).expect("a reply has a JSON form");
        self.answer(text)
    }

    fn snapshots(&mut self, host: &Hostname, at: AnswerContext<'_>) -> Vec<HostSnapshot> {
        if let Some(said) = self.sent_snapshots.get(host)
            && self.rng.chance(self.rates.repeated)
        {
            let said = said.clone();
            self.tell(Falsehood::SnapshotsRepeated);
            return said;
        }
        let mut snapshots = self.truthful(host);
        if !self.is_false() {
            return snapshots;
        }
        match self.rng.below(20) {
            0..=1 => {
                self.tell(Falsehood::SnapshotsOmitted);
                let keep = self.rng.index(snapshots.len().max(1));
                snapshots.truncate(keep);
            }
            2..=3 => {
                self.tell(Falsehood::UnknownRollout);
                let unknown = false_values::unknown_rollout(&mut self.rng, at);
                snapshots.extend(self.made_up(host, unknown, at));
            }
            4..=7 => self.add_unfollowed(host, &mut snapshots, at),
            8 => {
                self.tell(Falsehood::SnapshotFlood);
                let first = snapshots.first().cloned();
                let unknown = false_values::unknown_rollout(&mut self.rng, at);
                let copied = first.or_else(|| self.made_up(host, unknown, at));
                snapshots.extend(copied.into_iter().cycle().take(FLOOD));
            }
            _ => {
                if snapshots.is_empty() {
                    self.add_unfollowed(host, &mut snapshots, at);
                }
                let changes = self.rng.range(1, 3);
                let changed = self.rng.index(snapshots.len());
                for _ in 0..changes {
                    if let Some(snapshot) = snapshots.get_mut(changed) {
                        self.change(snapshot, at);
                    }
                }
            }
        }
        snapshots
    }

    /// The open records of a host, as far as it reported.
    fn truthful(&self, host: &Hostname) -> Vec<HostSnapshot> {
        let of_host = self.records.iter().filter(|((name, _), _)| name == host);
        let open = of_host.filter(|(_, record)| record.state.is_open());
        open.map(|(_, record)| HostSnapshot::from(record)).collect()
    }

    /// A genuine rollout, which the host perhaps never saw, in any state.
    fn add_unfollowed(
        &mut self,
        host: &Hostname,
        snapshots: &mut Vec<HostSnapshot>,
        at: AnswerContext<'_>,
    ) {
        let targets = at.targets_of(host);
        if !targets.is_empty() {
            self.tell(Falsehood::RolloutNotFollowed);
            let rollout_id = self.rng.pick(&targets).rollout_id.clone();
            snapshots.extend(self.made_up(host, rollout_id, at));
        }
    }

    fn made_up(
        &mut self,
        host: &Hostname,
        rollout_id: RolloutId,
        at: AnswerContext<'_>,
    ) -> Option<HostSnapshot> {
        let targets = at.targets_of(host);
        let genuine = targets
            .iter()
            .rfind(|target| target.rollout_id == rollout_id);
        let target_closure = match genuine {
            Some(target) => target.closure.clone(),
            None => false_values::closure(&mut self.rng, host, at),
        };
        let closure = false_values::closure(&mut self.rng, host, at);
        let mut last_event_seq = self.rng.below(40);
        if self.rng.chance(200) {
            self.tell(Falsehood::FalseSequence);
            last_event_seq = false_values::sequence(&mut self.rng, last_event_seq);
        }
        let acked = self.rng.chance(700).then(|| at.wall());
        Some(HostSnapshot {
            channel: rollout_id.channel(),
            rollout_id,
            hostname: host.clone(),
            state: *self.rng.pick(&HostState::ALL),
            target_closure,
            current_closure_at_dispatch: self.rng.chance(700).then_some(closure),
            current_closure: None,
            dispatched_at: at.wall(),
            dispatch_acked_at: acked,
            activation_started_at: acked,
            activation_completed_at: None,
            soak_due_at: None,
            last_event_seq,
        })
    }

    fn change(&mut self, snapshot: &mut HostSnapshot, at: AnswerContext<'_>) {
        let rng = &mut self.rng;
        let host = snapshot.hostname.clone();
        let falsehood = match rng.below(24) {
            0..=5 => {
                snapshot.state = *rng.pick(&HostState::ALL);
                Falsehood::FalseState
            }
            6..=11 => {
                let closure = false_values::closure(rng, &host, at);
                snapshot.current_closure_at_dispatch = Some(closure);
                // The use of a made-up predecessor.
                if rng.chance(500) {
                    snapshot.state = HostState::Failed;
                    snapshot.last_event_seq = snapshot.last_event_seq.saturating_add(1);
                }
                Falsehood::FalseClosureBefore
            }
            12..=14 => {
                snapshot.current_closure = Some(false_values::closure(rng, &host, at));
                Falsehood::FalseRunningClosure
            }
            15..=16 => {
                snapshot.target_closure = false_values::closure(rng, &host, at);
                Falsehood::FalseTarget
            }
            17..=19 => {
                snapshot.last_event_seq = false_values::sequence(rng, snapshot.last_event_seq);
                Falsehood::FalseSequence
            }
            20..=22 => {
                snapshot.dispatched_at = false_values::time(rng, at.wall());
                snapshot.dispatch_acked_at = Some(false_values::time(rng, at.wall()));
                snapshot.activation_completed_at = Some(false_values::time(rng, at.wall()));
                snapshot.soak_due_at = Some(false_values::time(rng, at.wall()));
                Falsehood::FalseTimes
            }
            _ => {
                snapshot.hostname = Hostname::from("h00-other");
                Falsehood::FalseHost
            }
        };
        self.tell(falsehood);
    }
}
