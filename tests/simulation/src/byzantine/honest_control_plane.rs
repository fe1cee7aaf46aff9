//! An honest control plane that remembers nothing of the hostile one: the real fold, planner and recovery
//! on one log that never fails.

use nixfleet_agent::core::DeliveryResult;
use nixfleet_core::heartbeat_recovery;
use nixfleet_core::partition::PartitionState;
use nixfleet_plan::FleetView;
use nixfleet_planner::LeadershipCore;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatRequest, OwnerHeartbeat};
use nixfleet_proto::{
    Entry, EntryBody, HostState, Hostname, PinnedSet, PlanAction, Position, Producer, RolloutId,
    StoredAt,
};

use super::answer::{Answer, Artifacts, EventResults, Offer, ReplyText};
use super::genuine_releases::{AnswerContext, GenuineRelease};
use crate::engine::Time;
use crate::services::dispatch_queue::DispatchQueue;

/// Plans in a row: each one appends what follows from the one before.
const PLANS_MAX: usize = 20;
/// Every answer takes this long.
const MILLIS: u64 = 5;

/// The honest control plane.
#[derive(Debug)]
pub struct HonestControlPlane {
    state: PartitionState,
    leader: LeadershipCore,
    queue: DispatchQueue,
    pinned: PinnedSet,
    last_seq: u64,
}

impl HonestControlPlane {
    /// A control plane without rows, with one release to roll out.
    pub fn new(release: &GenuineRelease, now: Time) -> Self {
        let mut honest = Self {
            state: PartitionState::new(),
            leader: LeadershipCore::new(FleetView::new(), 1),
            queue: DispatchQueue::default(),
            pinned: release.release.pinned.clone(),
            last_seq: 0,
        };
        honest.leader.set_release(release.release.plan.clone());
        for action in honest.leader.fence(now.wall(0)).into_values().flatten() {
            let position = honest.next_position();
            honest.leader.barrier_appended(Partition::new(0), position);
            honest.fold(
                position,
                honest.leader.entry(Partition::new(0), action, now.wall(0)),
            );
        }
        honest.plan(now);
        honest
    }

    fn next_position(&mut self) -> Position {
        self.last_seq += 1;
        Position {
            seq: self.last_seq,
            index: 0,
        }
    }

    fn append(&mut self, body: EntryBody, now: Time) {
        let position = self.next_position();
        self.fold(position, Entry::new(now.wall(0), body));
    }

    fn fold(&mut self, position: Position, entry: Entry) {
        let stored_at = StoredAt::new(entry.received_at);
        let outcome = self.state.apply(position, stored_at, &entry, &self.pinned);
        self.leader
            .apply_outcome(Partition::new(0), &outcome, &self.pinned)
            .expect("the only leader follows its own log");
        self.queue.follow(Partition::new(0), &outcome);
    }

    /// Plans until nothing follows.
    pub fn plan(&mut self, now: Time) {
        for _ in 0..PLANS_MAX {
            let appends = self.leader.plan(now.wall(0)).appends;
            let actions: Vec<PlanAction> = appends.into_values().flatten().collect();
            if actions.is_empty() {
                return;
            }
            let placed: Vec<_> = actions
                .into_iter()
                .map(|action| {
                    let position = self.next_position();
                    self.leader
                        .appended(Partition::new(0), position, action.clone());
                    (
                        position,
                        self.leader.entry(Partition::new(0), action, now.wall(0)),
                    )
                })
                .collect();
            for (position, entry) in placed {
                self.fold(position, entry);
            }
        }
    }

    /// Replies to a heartbeat, as an owner does.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: Time) -> Answer<ReplyText> {
        let release = self.leader.view().release();
        let host = release.and_then(|release| release.fleet().hosts.get(&request.hostname));
        let Some(channel) = host.map(|host| host.channel.clone()) else {
            return Answer::after_millis(MILLIS, None);
        };
        let heartbeat = OwnerHeartbeat {
            channel,
            received_at: now.wall(0),
            request: request.clone(),
        };
        for body in heartbeat_recovery::derive_entries(&self.state, &heartbeat) {
            self.append(body, now);
        }
        self.plan(now);
        let reply = heartbeat_recovery::reply(&self.state, &heartbeat).reply;
        let text = serde_json::to_string(&reply).expect("a reply has a JSON form");
        Answer::after_millis(MILLIS, Some(text))
    }

    /// Takes events into the log; those of rollouts that it does not know are refused.
    pub fn events(&mut self, requests: &[EventRequest], now: Time) -> Answer<EventResults> {
        let results = requests.iter().map(|request| {
            if self.state.rollout(&request.rollout_id).is_none() {
                return DeliveryResult::Refused {
                    status: 404,
                    code: "unknown-rollout".to_owned(),
                    message: String::new(),
                };
            }
            let body = EntryBody::HostEvent {
                rollout_id: request.rollout_id.clone(),
                hostname: request.hostname.clone(),
                producer: Producer::Agent,
                event: request.event.clone().into(),
            };
            self.append(body, now);
            DeliveryResult::Delivered
        });
        let results = results.collect();
        self.plan(now);
        Answer::after_millis(MILLIS, Some(results))
    }

    /// Offers what is queued for a host.
    pub fn poll(&mut self, host: &Hostname, now: Time) -> Answer<Offer> {
        self.plan(now);
        let offer = self.queue.fetch(host, now).map(|row| Dispatch {
            soak_due_at: now.wall(0) + row.soak_minutes.delta(),
            hostname: row.hostname,
            rollout_id: row.rollout_id,
            target_closure: row.target_closure,
            soak_minutes: row.soak_minutes,
            enqueued_at: row.enqueued_at,
        });
        // A long-poll without a dispatch takes its time.
        let millis = if offer.is_some() { MILLIS } else { 3_000 };
        Answer::after_millis(millis, Some(offer))
    }

    /// Serves the newest signing of a rollout.
    pub fn artifacts(&self, rollout_id: &RolloutId, at: AnswerContext<'_>) -> Answer<Artifacts> {
        let mut releases = at.releases().iter().rev();
        let found = releases.find_map(|release| release.artifacts(rollout_id));
        Answer::after_millis(MILLIS, found)
    }

    /// Why the fleet has not converged on a release.
    pub fn unconverged(&self, release: &GenuineRelease) -> Option<String> {
        release.targets.iter().find_map(|(hostname, target)| {
            let rollout = self.state.rollout(&target.rollout_id);
            let host = rollout.and_then(|rollout| rollout.hosts.get(hostname));
            let state = host.map(|host| host.record.state);
            (state != Some(HostState::Converged)).then(|| {
                let id = &target.rollout_id;
                format!("{hostname} is {state:?} in {id} with {}", target.closure)
            })
        })
    }
}
