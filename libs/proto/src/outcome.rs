//! What the fold made of an entry.
//!
//! An outcome carries the next record of everything it touched, so that whoever follows the output
//! log never computes domain state. Opening a rollout is the exception: it names the manifest, and
//! the records of its hosts are [`crate::Pinned::pending_hosts`]. In a frame, the record of a host is
//! left to the last outcome that changed it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::action::{Gate, Hold};
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
    /// Fold time: the largest `receivedAt` of the partition so far.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// What the entry was about.
    pub subject: OutcomeSubject,
    /// Trace context of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Accepted or rejected.
    #[serde(flatten)]
    pub decision: Decision,
}

/// An outcome as it is read: a flattened enum would be copied first.
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

/// What an entry was about, for people, archives and metrics.
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
}

/// Accepted or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// The entry was legal; this follows.
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

    /// The records of hosts that it has.
    pub fn host_records(&self) -> &[Arc<HostRecord>] {
        match self {
            Self::Accepted(accepted) => &accepted.hosts,
            Self::Rejected(_) => &[],
        }
    }

    /// Puts other records of hosts in their place, and gives those back; a rejection has none.
    pub fn replace_host_records(&mut self, records: Vec<Arc<HostRecord>>) -> Vec<Arc<HostRecord>> {
        match self {
            Self::Accepted(accepted) => std::mem::replace(&mut accepted.hosts, records),
            Self::Rejected(_) => Vec::new(),
        }
    }
}

/// What an accepted entry changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Accepted {
    /// The rollout this entry opened; its hosts come from the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// Next records of the hosts touched, shared with the state that made them; in a frame without
    /// those that a later outcome has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Arc<HostRecord>>,
    /// Next records of the rollouts touched, the opened one included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutRecord>,
    /// Rollout events the entry caused, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RolloutEvent>,
    /// What else follows, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// The leader epoch that counts from here on, after a barrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<u64>,
}

/// A rollout that came into being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opened {
    /// Its id.
    pub rollout_id: RolloutId,
    /// The manifest with its hosts, in the object store.
    pub manifest_hash: ManifestHash,
}

/// What a transition asks the world to do, with everything needed to do it.
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
    /// Puts a dispatch in the queue.
    InsertDispatch {
        rollout_id: RolloutId,
        hostname: Hostname,
        target_closure: ClosureHash,
        soak_minutes: Minutes,
    },
    /// The host left Pending: its dispatch has done its work.
    RemoveDispatch {
        rollout_id: RolloutId,
        hostname: Hostname,
    },
    /// The rollout is over: no dispatch of it may be delivered any more.
    CancelDispatches {
        rollout_id: RolloutId,
    },
    /// A Pending host was seen on its target; absent once it left Pending.
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
