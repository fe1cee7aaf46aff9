//! State of the swarm: the file of `nixfleet-swarm --state` and the reply to `GET /state`.
//!
//! ```json
//! {
//!   "v": 1,
//!   "at": "2026-05-01T10:00:05Z",
//!   "startedAt": "2026-05-01T10:00:00Z",
//!   "seed": 7,
//!   "totals": {
//!     "hosts": 300, "running": 299, "online": 298,
//!     "acceptedEvents": 1800, "pendingEvents": 3, "deadLetters": 0, "heartbeats": 900,
//!     "dispatches": 300, "refusedDispatches": 0,
//!     "crashes": 4, "reboots": 2, "outages": 5, "networkErrors": 7
//!   },
//!   "hostsByClosure": { "b…-nixos-system": 100 },
//!   "hostsByState": { "stable@4f1c": { "Converged": 90, "Soaking": 10 } },
//!   "acceptedByKind": { "DispatchAck": 300 },
//!   "dispatchLatencyMs": { "count": 300, "p50": 12, "p90": 20, "p99": 40, "max": 55 },
//!   "hosts": {
//!     "web-01": {
//!       "currentClosure": "b…-nixos-system-web-01",
//!       "running": true,
//!       "online": true,
//!       "rollouts": {
//!         "stable@4f1c": {
//!           "state": "Converged",
//!           "targetClosure": "b…-nixos-system-web-01",
//!           "currentClosureAtDispatch": "a…-nixos-system-web-01",
//!           "lastEventSeq": 7,
//!           "acceptedEvents": 7,
//!           "acceptedSeqs": [[1, 7]],
//!           "pendingEvents": 0
//!         }
//!       },
//!       "deadLetters": [ { "rolloutId": "stable@4f1c", "seq": 3, "kind": "ProbeResult",
//!                          "status": 404, "code": "unknown-rollout", "message": "…",
//!                          "at": "2026-05-01T10:00:01Z" } ],
//!       "refusedDispatches": [ { "rolloutId": "stable@4f1c", "reason": "bad-signature",
//!                                "message": "…", "at": "2026-05-01T10:00:01Z", "count": 1 } ],
//!       "dispatchLatencyMs": [ 12 ]
//!     }
//!   }
//! }
//! ```
//!
//! * `acceptedEvents` counts events acknowledged with 2xx, which the control plane holds durably. Each
//!   of them has an entry in the archive; `acceptedSeqs` are their sequences, as ranges. An event whose
//!   response was lost (a crash, an outage, a restarted service) is sent again: its second entry is
//!   rejected as `stale`, no other rejection of an agent's event is normal.
//! * `deadLetters` are events that the control plane refused permanently.
//! * A host that converges without a dispatch (it already ran its target) has no entry under
//!   `rollouts`; compare its `currentClosure`.
//! * `state` is the agent's own. It ends equal to the control plane's record, except in a rollout
//!   that a newer dispatch replaced on the host (`"replaced":true`), which the agent ignores.
//! * `dispatchLatencyMs` is the time from `enqueued_at` of a dispatch to its arrival at the agent, for
//!   the first delivery of each rollout; percentiles are over all hosts.
//! * The file is replaced atomically every second after a change, every five seconds without one, and
//!   a last time at exit. If writing is slow (thousands of hosts), the interval grows so that writing
//!   takes a tenth of the time. `GET /summary` is the same document with `hosts` empty, and cheap.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use nixfleet_proto::{ClosureHash, HostState, Hostname, RolloutId, Timestamp};
use serde::{Deserialize, Serialize};

/// The whole dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the module's example gives each key")]
pub struct SwarmState {
    pub v: u32,
    pub at: Timestamp,
    pub started_at: Timestamp,
    pub seed: u64,
    pub totals: Totals,
    pub hosts_by_closure: BTreeMap<ClosureHash, u64>,
    pub hosts_by_state: BTreeMap<RolloutId, BTreeMap<HostState, u64>>,
    pub accepted_by_kind: BTreeMap<String, u64>,
    pub dispatch_latency_ms: Percentiles,
    pub hosts: BTreeMap<Hostname, HostStatus>,
}

/// Sums over all hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the keys say what they count")]
pub struct Totals {
    pub hosts: u64,
    pub running: u64,
    pub online: u64,
    pub accepted_events: u64,
    pub pending_events: u64,
    #[serde(rename = "deadLetters")]
    pub refused_events: u64,
    pub heartbeats: u64,
    pub dispatches: u64,
    pub refused_dispatches: u64,
    pub crashes: u64,
    pub reboots: u64,
    pub outages: u64,
    pub network_errors: u64,
}

/// Percentiles of a set of samples, in milliseconds; zeros when it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct Percentiles {
    pub count: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

/// State of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    pub current_closure: ClosureHash,
    /// False while the agent process is down.
    pub running: bool,
    pub online: bool,
    pub rollouts: BTreeMap<RolloutId, RolloutStatus>,
    /// Events that the control plane refused permanently, newest last, at most 32.
    #[serde(rename = "deadLetters")]
    pub refused_events: Vec<RefusedEvent>,
    /// Dispatches the agent did not follow, one per rollout and reason.
    pub refused_dispatches: Vec<RefusedDispatch>,
    /// Milliseconds, one per dispatched rollout.
    pub dispatch_latency_ms: Vec<u64>,
}

/// State of a rollout on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    pub state: HostState,
    /// Target closure of the signed manifest.
    pub target_closure: ClosureHash,
    /// The closure that a rollback restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure_at_dispatch: Option<ClosureHash>,
    /// Sequence of the last event.
    pub last_event_seq: u64,
    /// Events acknowledged with 2xx.
    pub accepted_events: u64,
    /// Their sequences, as ranges from first to last, ascending.
    #[serde(default)]
    pub accepted_seqs: Vec<(u64, u64)>,
    /// Events without a response.
    pub pending_events: u64,
    /// True after a newer dispatch replaced the rollout on this host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
}

/// An event that the control plane refused permanently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct RefusedEvent {
    pub rollout_id: RolloutId,
    pub seq: u64,
    pub kind: String,
    pub status: u16,
    pub code: String,
    pub message: String,
    pub at: Timestamp,
}

/// A dispatch the agent did not follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedDispatch {
    pub rollout_id: RolloutId,
    /// Kebab-case name of the reason.
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
    pub count: u64,
}

impl RolloutStatus {
    /// Records that the event with this sequence was acknowledged with 2xx.
    pub fn accept(&mut self, seq: u64) {
        self.accepted_events += 1;
        let ranges = &mut self.accepted_seqs;
        let at = ranges.partition_point(|(_, last)| last.saturating_add(1) < seq);
        match ranges.get_mut(at) {
            Some((first, last)) if *first <= seq.saturating_add(1) => {
                *first = seq.min(*first);
                *last = seq.max(*last);
            }
            Some(_) | None => ranges.insert(at, (seq, seq)),
        }
        // Filling a hole of one joins two ranges.
        if let (Some((_, last)), Some((first, end))) =
            (ranges.get(at).copied(), ranges.get(at + 1).copied())
            && first <= last.saturating_add(1)
        {
            ranges[at].1 = end.max(last);
            ranges.remove(at + 1);
        }
    }
}

impl Percentiles {
    /// Nearest-rank percentiles; sorts the samples.
    pub fn of(samples: &mut [u64]) -> Self {
        samples.sort_unstable();
        let rank = |percent: usize| {
            let at = (samples.len() * percent).div_ceil(100).max(1) - 1;
            samples.get(at).copied().unwrap_or(0)
        };
        Self {
            count: samples.len() as u64,
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: samples.last().copied().unwrap_or(0),
        }
    }
}

/// Replaces the file at `path` atomically, so that a reader never sees a partial one.
///
/// # Errors
/// The directory cannot be written to.
pub fn write_atomically(path: &Path, state: &SwarmState) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let name = path.file_name().map_or_else(
        || std::borrow::Cow::Borrowed("state"),
        |name| name.to_string_lossy(),
    );
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
    serde_json::to_writer(&mut file, state)?;
    file.flush()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sequences_are_kept_as_ranges() {
        let mut rollout = RolloutStatus {
            state: HostState::Pending,
            target_closure: ClosureHash::from("b"),
            current_closure_at_dispatch: None,
            last_event_seq: 0,
            accepted_events: 0,
            accepted_seqs: Vec::new(),
            pending_events: 0,
            replaced: false,
        };
        let mut check = |seq: u64, expected: &[(u64, u64)]| {
            rollout.accept(seq);
            assert_eq!(rollout.accepted_seqs, expected, "after {seq}");
        };
        check(2, &[(2, 2)]);
        check(3, &[(2, 3)]);
        check(7, &[(2, 3), (7, 7)]);
        check(5, &[(2, 3), (5, 5), (7, 7)]);
        check(6, &[(2, 3), (5, 7)]);
        check(6, &[(2, 3), (5, 7)]);
        check(1, &[(1, 3), (5, 7)]);
        check(4, &[(1, 7)]);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples: Vec<u64> = (1..=100).rev().collect();
        let found = Percentiles::of(&mut samples);
        assert_eq!(
            found,
            Percentiles {
                count: 100,
                p50: 50,
                p90: 90,
                p99: 99,
                max: 100
            }
        );
        assert_eq!(Percentiles::of(&mut []), Percentiles::default());
    }
}
