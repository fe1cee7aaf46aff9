//! Delivery results of sent events.

use nixfleet_proto::{RolloutId, Timestamp};

use super::outbox::{Outbox, RequestEnd};
use super::{AgentCore, DeliveryResult, Notification};

impl AgentCore {
    pub(super) fn events_answered(
        &mut self,
        id: &RolloutId,
        answers: Vec<(u64, DeliveryResult)>,
        now: Timestamp,
    ) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let in_flight = |seq: &u64| rollout.outbox.is_in_flight(*seq);
        if !answers.iter().any(|(seq, _)| in_flight(seq)) {
            return rollout.outbox.finish_earlier_request();
        }
        let mut settled = false;
        for (seq, answer) in answers {
            match answer {
                DeliveryResult::Delivered => settled |= self.event_delivered(id, seq),
                DeliveryResult::Refused {
                    status,
                    code,
                    message,
                } => settled |= self.event_refused(id, seq, (status, code, message)),
                DeliveryResult::Unavailable { .. } => {}
                DeliveryResult::BatchRefused => {
                    let outbox = self.rollouts.get_mut(id).map(|rollout| &mut rollout.outbox);
                    if outbox.is_some_and(Outbox::send_one_by_one) {
                        return;
                    }
                }
            }
        }
        self.land(id, now);
        if settled {
            self.heartbeat.acknowledged_at = Some(now);
        }
    }

    /// Ends the request; events without a result are sent again after a pause.
    fn land(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if let RequestEnd::Unsettled { attempts } = rollout.outbox.finish_request() {
            let salt = self.salt ^ rollout.outbox.first_waiting();
            let pause = self.config.backoff(attempts, salt);
            rollout.outbox.wait_until(now + pause);
        }
    }

    fn event_delivered(&mut self, id: &RolloutId, seq: u64) -> bool {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return false;
        };
        let Some(sent) = rollout.outbox.take_answered(seq) else {
            return false;
        };
        let kind = sent.event.body.name();
        if sent.durable {
            rollout.mark_dirty();
            rollout
                .outbox
                .retain_for_replay(sent.event, self.config.events_kept_max);
        }
        self.note(Notification::Delivered {
            rollout_id: id.clone(),
            seq,
            kind,
        });
        true
    }

    fn event_refused(
        &mut self,
        id: &RolloutId,
        seq: u64,
        (status, code, message): (u16, String, String),
    ) -> bool {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return false;
        };
        let Some(sent) = rollout.outbox.take_answered(seq) else {
            return false;
        };
        rollout.mark_dirty();
        self.note(Notification::EventRefused {
            rollout_id: id.clone(),
            seq,
            kind: sent.event.body.name(),
            status,
            code,
            message,
        });
        true
    }
}
