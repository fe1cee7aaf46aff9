//! Dispatches: genuine ones, old ones, those of others, and made-up ones.

use nixfleet_proto::wire::Dispatch;
use nixfleet_proto::{ClosureHash, Hostname, Minutes, RolloutId};

use super::{HostileControlPlane, false_values};
use crate::byzantine::answer::{Answer, Offer};
use crate::byzantine::coverage::Falsehood;
use crate::byzantine::genuine_releases::AnswerContext;

impl HostileControlPlane {
    /// Answers a long-poll.
    pub fn poll(&mut self, host: &Hostname, at: AnswerContext<'_>) -> Answer<Offer> {
        let offer = if self.rng.chance(400) {
            None
        } else if self.is_false() {
            self.false_dispatch(host, at)
        } else {
            self.newest(host, at)
        };
        if let Some(dispatch) = &offer {
            self.offered.insert(host.clone(), dispatch.clone());
        }
        let mut answer = self.answer(offer);
        // A long-poll may wait, and each offer is worth some work of the agent.
        answer.after += std::time::Duration::from_millis(self.rng.range(500, 25_000));
        answer
    }

    fn newest(&mut self, host: &Hostname, at: AnswerContext<'_>) -> Offer {
        let release = at.releases().last()?;
        let target = release.targets.get(host)?;
        Some(dispatch(host, &target.rollout_id, &target.closure, at))
    }

    fn false_dispatch(&mut self, host: &Hostname, at: AnswerContext<'_>) -> Offer {
        let own = at.targets_of(host);
        let others = at.releases().iter().flat_map(|release| &release.targets);
        let others: Vec<_> = others.filter(|(name, _)| *name != host).collect();
        let any = || own.last().copied();
        let (falsehood, offer) = match self.rng.below(20) {
            0..=5 if !own.is_empty() => {
                let target = *self.rng.pick(&own);
                let offer = dispatch(host, &target.rollout_id, &target.closure, at);
                (Falsehood::OldDispatch, offer)
            }
            6 if !others.is_empty() => {
                let (name, target) = *self.rng.pick(&others);
                let offer = dispatch(name, &target.rollout_id, &target.closure, at);
                (Falsehood::DispatchOfOtherHost, offer)
            }
            7..=8 if !others.is_empty() => {
                let (_, target) = *self.rng.pick(&others);
                let rollout_id = any().map_or(&target.rollout_id, |own| &own.rollout_id);
                (
                    Falsehood::TargetOfOtherHost,
                    dispatch(host, rollout_id, &target.closure, at),
                )
            }
            9..=10 if !others.is_empty() => {
                let (_, target) = *self.rng.pick(&others);
                let offer = dispatch(host, &target.rollout_id, &target.closure, at);
                (Falsehood::DispatchOfOtherChannel, offer)
            }
            11..=12 => {
                let target = any()?;
                let closure = false_values::closure(&mut self.rng, host, at);
                let offer = dispatch(host, &target.rollout_id, &closure, at);
                (Falsehood::DispatchOfMadeUpClosure, offer)
            }
            13 => {
                let rollout_id = false_values::unknown_rollout(&mut self.rng, at);
                let closure = false_values::closure(&mut self.rng, host, at);
                let offer = dispatch(host, &rollout_id, &closure, at);
                (Falsehood::DispatchOfMadeUpRollout, offer)
            }
            14..=17 => {
                let target = any()?;
                let mut offer = dispatch(host, &target.rollout_id, &target.closure, at);
                offer.enqueued_at = false_values::time(&mut self.rng, at.wall());
                offer.soak_due_at = false_values::time(&mut self.rng, at.wall());
                (Falsehood::DispatchAtFalseTime, offer)
            }
            _ => (Falsehood::DispatchRepeated, self.offered.get(host)?.clone()),
        };
        self.tell(falsehood);
        Some(offer)
    }
}

fn dispatch(
    host: &Hostname,
    rollout_id: &RolloutId,
    closure: &ClosureHash,
    at: AnswerContext<'_>,
) -> Dispatch {
    let soak_minutes = Minutes::from_seconds(10);
    Dispatch {
        hostname: host.clone(),
        rollout_id: rollout_id.clone(),
        target_closure: closure.clone(),
        soak_due_at: at.wall() + soak_minutes.delta(),
        soak_minutes,
        enqueued_at: at.wall(),
    }
}
