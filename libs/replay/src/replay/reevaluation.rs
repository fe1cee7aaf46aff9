//! Decides archived entries again and compares the results with the published outcomes.

use std::borrow::Cow;

use nixfleet_proto::{
    Decision, Entry, EntryBody, Outcome, OutputFrame, PlanAction, Reason, SignatureCheck,
};

use super::{InputItem, Replay};
use crate::row_comparison::Difference;

impl Replay {
    /// Reports entries of a frame without an outcome.
    pub(super) fn find_dropped(&mut self, out_seq: u64, frame: &OutputFrame, input: &[InputItem]) {
        let mut outcomes = frame
            .outcomes
            .iter()
            .map(|outcome| outcome.position)
            .peekable();
        for item in input {
            let position = item.position();
            while outcomes.next_if(|at| *at < position).is_some() {}
            let is_answered = outcomes.next_if_eq(&position).is_some();
            if item.entry.is_some() && !is_answered {
                self.differences.push(Difference {
                    table: "outcomes",
                    key: vec![position.seq.to_string(), position.index.to_string()],
                    column: String::new(),
                    expected: Some("an outcome".into()),
                    found: Some(format!("none in output frame {out_seq}").into()),
                });
            }
        }
    }

    /// The outcome of folding the entry on the state before it, when both are known.
    pub(super) fn decide(
        &mut self,
        outcome: &Outcome,
        item: Option<&InputItem>,
    ) -> Option<Outcome> {
        self.coverage.outcomes += 1;
        let read = item.and_then(|item| Some((item.stored_at, item.entry.as_ref()?)));
        let Some((stored_at, entry)) = read.filter(|(_, entry)| self.is_decidable(&entry.body))
        else {
            self.coverage.unchecked += 1;
            return None;
        };
        self.coverage.decided += 1;
        let (position, pinned) = (outcome.position, &self.pinned);
        let entry = with_signature_check(entry, outcome);
        Some(self.state.decide(position, stored_at, &entry, pinned))
    }

    pub(super) fn compare(&mut self, decided: &Outcome, outcome: &Outcome) {
        if decided == outcome {
            return;
        }
        let position = outcome.position;
        self.differences.push(Difference {
            table: "outcomes",
            key: vec![position.seq.to_string(), position.index.to_string()],
            column: outcome.subject.entry.to_string(),
            expected: serde_json::to_value(decided).ok(),
            found: serde_json::to_value(outcome).ok(),
        });
    }

    /// Whether this state decides the entry like the owner's: an incomplete state decides nothing that
    /// depends on its missing part.
    fn is_decidable(&self, body: &EntryBody) -> bool {
        if body.opens().is_some_and(|hash| !self.is_pinned(hash)) {
            return false;
        }
        if !self.origin.is_partial() {
            return true;
        }
        let opens_or_fences = match body {
            EntryBody::Plan { action, .. } => matches!(
                action,
                PlanAction::OpenRollout { .. } | PlanAction::Barrier {}
            ),
            EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Operator { .. } => false,
        };
        let knows_rollout = body
            .rollout_id()
            .is_some_and(|rollout_id| self.state.rollout(rollout_id).is_some());
        let is_planned = matches!(body, EntryBody::Plan { .. });
        knows_rollout && !opens_or_fences && (self.knows_leader || !is_planned)
    }
}

/// The entry with what the owner found out about its signature: a replay has no keys, so it takes that from the
/// outcome.
fn with_signature_check<'a>(entry: &'a Entry, outcome: &Outcome) -> Cow<'a, Entry> {
    let mut entry = Cow::Borrowed(entry);
    if let EntryBody::Operator { .. } = entry.body
        && let EntryBody::Operator { origin, .. } = &mut entry.to_mut().body
    {
        origin.check = match &outcome.decision {
            Decision::Rejected(rejection) if rejection.reason == Reason::Unsigned => {
                SignatureCheck::Invalid
            }
            Decision::Rejected(_) | Decision::Accepted(_) => SignatureCheck::Valid,
        };
    }
    entry
}
