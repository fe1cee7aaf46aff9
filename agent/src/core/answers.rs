//! What became of events that were sent.

use nixfleet_proto::{RolloutId, Timestamp};

use super::outbox::{Landing, Outbox};
use super::{AgentCore, Answer, Note};

impl AgentCore {
    pub(super) fn events_answered(
        &mut self,
        id: &RolloutId,
        answers: Vec<(u64, Answer)>,
        now: Timestamp,
    ) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let flying = |seq: &u64| rollout.outbox.is_in_flight(*seq);
        if !answers.iter().any(|(seq, _)| flying(seq)) {
            return;
        }
        let mut settled = false;
        for (seq, answer) in answers {
            match answer {
                Answer::Delivered => settled |= self.event_delivered(id, seq),
                Answer::Refused {
                    status,
                    code,
                    message,
                } => settled |= self.event_refused(id, seq, (status, code, message)),
                Answer::Unavailable { .. } => {}
                Answer::NotTogether => {
                    let outbox = self.rollouts.get_mut(id).map(|rollout| &mut rollout.outbox);
                    if outbox.is_some_and(Outbox::separate) {
                        return;
                    }
                }
            }
        }
        self.land(id, now);
        if settled {
            self.heartbeat_after_answer(now);
        }
    }

    /// Ends the request; what was not settled is sent again after a pause.
    fn land(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if let Landing::Unsettled { attempts } = rollout.outbox.land() {
            let salt = self.salt ^ rollout.outbox.first_waiting();
            let pause = self.config.backoff(attempts, salt);
            rollout.outbox.wait_until(now + pause);
        }
    }

    fn event_delivered(&mut self, id: &RolloutId, seq: u64) -> bool {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return false;
        };
        let Some(sent) = rollout.outbox.settle(seq) else {
            return false;
        };
        let kind = sent.event.body.name();
        if sent.durable {
            rollout.touch();
            rollout.outbox.keep(sent.event, self.config.events_kept_max);
        }
        self.note(Note::Delivered {
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
        let Some(sent) = rollout.outbox.settle(seq) else {
            return false;
        };
        rollout.touch();
        self.note(Note::DeadLetter {
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
