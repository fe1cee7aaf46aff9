//! Stored JSON of queued dispatches and of the pinned terms of rollouts.

use nixfleet_proto::fleet::ResolvedBudget;
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::{ClosureHash, OnHealthFailure, Pinned, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DispatchRecord {
    pub(crate) target_closure: ClosureHash,
    pub(crate) soak_minutes: Minutes,
    pub(crate) enqueued_at: Timestamp,
}

/// The stored form of pinned terms; the hosts are separate rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PinnedTerms {
    on_health_failure: OnHealthFailure,
    waves: Vec<PinnedWave>,
    disruption_budgets: Vec<ResolvedBudget>,
}

impl From<&Pinned> for PinnedTerms {
    fn from(pinned: &Pinned) -> Self {
        Self {
            on_health_failure: pinned.on_health_failure,
            waves: pinned.waves.clone(),
            disruption_budgets: pinned.disruption_budgets.clone(),
        }
    }
}

impl PinnedTerms {
    /// Adds the hosts in their order.
    pub(crate) fn with_hosts(self, mut host_set: Vec<PinnedHost>) -> Pinned {
        host_set.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        Pinned {
            on_health_failure: self.on_health_failure,
            waves: self.waves,
            host_set,
            disruption_budgets: self.disruption_budgets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_records_keep_their_bytes() {
        let dispatch =
            r#"{"targetClosure":"b","soakMinutes":0.5,"enqueuedAt":"2026-05-01T10:00:00Z"}"#;
        let dispatch: DispatchRecord = serde_json::from_str(dispatch).unwrap();
        let terms = r#"{"onHealthFailure":"halt","waves":[{"soakMinutes":5}],"disruptionBudgets":[
            {"selector":{"all":true},"hosts":["h"],"maxInFlight":1,"maxInFlightPct":5}]}"#;
        let terms: PinnedTerms = serde_json::from_str(terms).unwrap();
        let samples = [
            ("dispatch", serde_json::to_vec(&dispatch).unwrap()),
            ("pinned-terms", serde_json::to_vec(&terms).unwrap()),
        ];
        nixfleet_encodings::check("stored-record", nixfleet_proto::LAYOUT_VERSION, samples);
    }
}
