//! Outcomes: the results of folding entries.
//!
//! An outcome carries the next version of every changed record, so that readers of the output log
//! compute no domain state. The opening of a rollout is the exception: it names the manifest, and the
//! records of its hosts are [`crate::Pinned::pending_hosts`]. In a frame, only the last outcome that
//! changed a host has its record.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::action::{Gate, Hold};
use crate::command_origin::Actor;
use crate::entry::Producer;
use crate::host::{FailedControl, HostRecord, HostState};
use crate::id::{ChannelName, ClosureHash, Hostname, ManifestHash, ProbeName, RolloutId};
use crate::internally_tagged::tagged_enum;
use crate::minutes::Minutes;
use crate::position::Position;
use crate::rejection::Rejection;
use crate::rollout::{RolloutEvent, RolloutRecord, RolloutState};
use crate::time;

/// The result of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Fields")]
pub struct Outcome {
    /// The entry's position in the input log of the partition.
    pub position: Position,
    /// Fold time: the largest `receivedAt` of the partition so far, without entries rejected as `clock`.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// Subject of the entry.
    pub subject: OutcomeSubject,
    /// Trace context of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Accepted or rejected.
    #[serde(flatten)]
    pub decision: Decision,
}

/// Deserialization form of an outcome: serde buffers a flattened enum.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    position: Position,
    #[serde(with = "time")]
    at: Timestamp,
    subject: OutcomeSubject,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    accepted: Option<Box<Accepted>>,
    #[serde(default)]
    rejected: Option<Rejection>,
}

impl TryFrom<Fields> for Outcome {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let decision = match (fields.accepted, fields.rejected) {
            (Some(accepted), None) => Decision::Accepted(accepted),
            (None, Some(rejection)) => Decision::Rejected(rejection),
            (Some(_), Some(_)) | (None, None) => {
                return Err("an outcome is either `accepted` or `rejected`");
            }
        };
        Ok(Self {
            position: fields.position,
            at: fields.at,
            subject: fields.subject,
            traceparent: fields.traceparent,
            decision,
        })
    }
}

/// Subject of an entry, for people, archives and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "names of docs/semantics.md, entries")]
pub struct OutcomeSubject {
    /// [`crate::EntryBody::name`].
    pub entry: Cow<'static, str>,
    /// Kind of the host event, when the entry is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_id: Option<RolloutId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// Who gave the command. Only an accepted command is proven to be theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Box<Actor>>,
}

/// Accepted or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// The entry was legal; these are its changes.
    Accepted(Box<Accepted>),
    /// The entry changed nothing.
    Rejected(Rejection),
}

impl Decision {
    /// `accepted`, or the reason of the rejection.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Rejected(rejection) => rejection.reason.name(),
        }
    }

    /// The host records.
    pub fn host_records(&self) -> &[Arc<HostRecord>] {
        match self {
            Self::Accepted(accepted) => &accepted.hosts,
            Self::Rejected(_) => &[],
        }
    }

    /// Replaces the host records and returns the previous ones; a rejection has none.
    pub fn replace_host_records(&mut self, records: Vec<Arc<HostRecord>>) -> Vec<Arc<HostRecord>> {
        match self {
            Self::Accepted(accepted) => std::mem::replace(&mut accepted.hosts, records),
            Self::Rejected(_) => Vec::new(),
        }
    }
}

/// Changes of an accepted entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Accepted {
    /// The rollout this entry opened; its hosts come from the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// Next records of changed hosts, shared with the state; in a frame without the records that a later
    /// outcome repeats.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Arc<HostRecord>>,
    /// Next records of changed rollouts, the opened one included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutRecord>,
    /// Rollout events the entry caused, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RolloutEvent>,
    /// Effects, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// The new leader epoch, after a barrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<u64>,
}

/// An opened rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opened {
    /// Its id.
    pub rollout_id: RolloutId,
    /// The manifest with its hosts, in the object store.
    pub manifest_hash: ManifestHash,
}

/// A side effect of a transition, with all data to execute it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "docs/storage.md, effects, gives each field")]
pub enum Effect {
    /// Replaces all outstanding failures of one probe of one host.
    ReplaceProbeFailures {
        rollout_id: RolloutId,
        hostname: Hostname,
        probe_name: ProbeName,
        failures: Vec<FailedControl>,
        #[serde(with = "time")]
        observed_at: Timestamp,
    },
    InsertQuarantine {
        channel: ChannelName,
        closure_hash: ClosureHash,
    },
    RemoveQuarantine {
        channel: ChannelName,
        closure_hash: ClosureHash,
    },
    InsertDispatch {
        rollout_id: RolloutId,
        hostname: Hostname,
        target_closure: ClosureHash,
        soak_minutes: Minutes,
    },
    /// Removes the dispatch of a host that left Pending.
    RemoveDispatch {
        rollout_id: RolloutId,
        hostname: Hostname,
    },
    /// Removes all dispatches of a rollout that became final.
    CancelDispatches {
        rollout_id: RolloutId,
    },
    /// Sets the closure of a Pending host that runs its target; absent: removes it.
    SetRecoveryCandidate {
        rollout_id: RolloutId,
        hostname: Hostname,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current_closure: Option<ClosureHash>,
    },
    RecordTransition {
        rollout_id: RolloutId,
        hostname: Hostname,
        from: HostState,
        to: HostState,
        #[serde(with = "time")]
        at: Timestamp,
    },
    RecordRolloutTransition {
        rollout_id: RolloutId,
        from: RolloutState,
        to: RolloutState,
        #[serde(with = "time")]
        at: Timestamp,
    },
    UpdateCurrentWave {
        rollout_id: RolloutId,
        wave: u32,
    },
    HaltLifted {
        channel: ChannelName,
    },
    /// Replaces the holds of one gate in one wave of a rollout.
    ReplaceBlocks {
        rollout_id: RolloutId,
        wave: u32,
        gate: Gate,
        holds: Vec<Hold>,
    },
}
tagged_enum!(Effect, "effect");
