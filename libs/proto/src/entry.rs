//! Entries of the input log: the only inputs that change state.
//!
//! Source: docs/semantics.md, entries.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::action::PlanAction;
use crate::command_origin::CommandOrigin;
use crate::event::HostEvent;
use crate::id::{ChannelName, ClosureHash, Hostname, ManifestHash, RolloutId};
use crate::internally_tagged::tagged_enum;
use crate::time;

/// One item of the input log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Layout version, [`crate::LAYOUT_VERSION`].
    pub v: u32,
    /// Time of the append, set once by the writer; at most [`Entry::CLOCK_SLACK`] away from [`StoredAt`].
    #[serde(with = "time")]
    pub received_at: Timestamp,
    /// W3C trace context of the causing request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Kind and fields.
    pub body: EntryBody,
}

/// Origin of a host event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Producer {
    /// The host's own agent; counts in `lastEventSeq`.
    Agent,
    /// The partition owner, from a heartbeat; counts in `recoverySeq`.
    Recovery,
}

/// The kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "docs/semantics.md, entries, gives each field")]
pub enum EntryBody {
    HostEvent {
        rollout_id: RolloutId,
        hostname: Hostname,
        producer: Producer,
        event: HostEvent,
    },
    /// A Pending host was seen running its target; the planner decides.
    RecoveryCandidate {
        rollout_id: RolloutId,
        hostname: Hostname,
        current_closure: ClosureHash,
    },
    /// A decision of the planner leader of `epoch`.
    Plan { epoch: u64, action: PlanAction },
    /// A command of a person.
    Operator {
        command: OperatorCommand,
        origin: Box<CommandOrigin>,
    },
}
tagged_enum!(EntryBody, "entry");

/// What an operator may append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "docs/semantics.md, entries, gives each field")]
pub enum OperatorCommand {
    /// Resumes a halted rollout and waives hosts.
    OperatorClearance {
        rollout_id: RolloutId,
        reason: String,
        #[serde(default)]
        waived_hosts: BTreeSet<Hostname>,
    },
    /// Lifts the quarantine of a closure on a channel.
    ClearQuarantine {
        channel: ChannelName,
        closure_hash: ClosureHash,
        reason: String,
    },
}
tagged_enum!(OperatorCommand, "command");

impl OperatorCommand {
    /// Most bytes of the names of all waived hosts of one rollout: every record of the rollout carries
    /// them.
    pub const WAIVED_BYTES_MAX: usize = 64 * 1024;
    /// Most bytes of a reason.
    pub const TEXT_BYTES_MAX: usize = 8 * 1024;
}

/// The broker's time of a message: when it was stored.
///
/// Rounded as the archive keeps it, so that a replay of the archive decides as the fold did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredAt(Timestamp);

impl StoredAt {
    /// The time of a stored message, in any resolution.
    pub fn new(at: Timestamp) -> Self {
        Self(time::column_time(at))
    }

    /// The time, in microseconds.
    pub fn at(self) -> Timestamp {
        self.0
    }
}

impl Entry {
    /// Longest distance between `receivedAt` and [`StoredAt`] of an entry that the fold accepts. One half is
    /// for the writer's clock, the other one for the way into the log.
    ///
    /// Source: docs/semantics.md, time.
    pub const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(60);

    /// An entry of the current layout.
    pub fn new(received_at: Timestamp, body: EntryBody) -> Self {
        Self {
            v: crate::LAYOUT_VERSION,
            received_at,
            traceparent: None,
            body,
        }
    }
}

impl EntryBody {
    /// Name of the kind, as logged and counted: the action's or command's own name where it has one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HostEvent { .. } => "HostEvent",
            Self::RecoveryCandidate { .. } => "RecoveryCandidate",
            Self::Plan { action, .. } => action.name(),
            Self::Operator { command, .. } => match command {
                OperatorCommand::OperatorClearance { .. } => "OperatorClearance",
                OperatorCommand::ClearQuarantine { .. } => "ClearQuarantine",
            },
        }
    }

    /// Who writes such entries: the third token behind the prefix of their subjects. NATS grants each class to
    /// one service.
    pub fn class(&self) -> &'static str {
        match self {
            Self::HostEvent {
                producer: Producer::Agent,
                ..
            } => "event",
            Self::HostEvent {
                producer: Producer::Recovery,
                ..
            }
            | Self::RecoveryCandidate { .. } => "recovery",
            Self::Plan { .. } => "plan",
            Self::Operator { .. } => "operator",
        }
    }

    /// The affected rollout, for entries about one rollout.
    pub fn rollout_id(&self) -> Option<&RolloutId> {
        match self {
            Self::HostEvent { rollout_id, .. } | Self::RecoveryCandidate { rollout_id, .. } => {
                Some(rollout_id)
            }
            Self::Plan { action, .. } => action.rollout_id(),
            Self::Operator { command, .. } => match command {
                OperatorCommand::OperatorClearance { rollout_id, .. } => Some(rollout_id),
                OperatorCommand::ClearQuarantine { .. } => None,
            },
        }
    }

    /// The affected host, for entries about one host.
    pub fn hostname(&self) -> Option<&Hostname> {
        match self {
            Self::HostEvent { hostname, .. } | Self::RecoveryCandidate { hostname, .. } => {
                Some(hostname)
            }
            Self::Plan { action, .. } => action.hostname(),
            Self::Operator { .. } => None,
        }
    }

    /// The manifest of the rollout that the entry opens.
    pub fn opens(&self) -> Option<&ManifestHash> {
        match self {
            Self::Plan {
                action: PlanAction::OpenRollout { manifest_hash, .. },
                ..
            } => Some(manifest_hash),
            Self::HostEvent { .. }
            | Self::RecoveryCandidate { .. }
            | Self::Plan { .. }
            | Self::Operator { .. } => None,
        }
    }

    /// The channel that determines the partition; a barrier goes to every partition.
    pub fn channel(&self) -> Option<ChannelName> {
        match self {
            Self::Operator {
                command: OperatorCommand::ClearQuarantine { channel, .. },
                ..
            } => Some(channel.clone()),
            Self::HostEvent { .. }
            | Self::RecoveryCandidate { .. }
            | Self::Plan { .. }
            | Self::Operator {
                command: OperatorCommand::OperatorClearance { .. },
                ..
            } => self.rollout_id().map(RolloutId::channel),
        }
    }
}
