//! The shared vocabulary: ids, wire types, host events, records, log entries, outcomes, frames and
//! subjects, each with its JSON form.
//!
//! Depends on no other crate of the workspace, and has no clock, IO, signatures or decisions. Start
//! reading at [`entry`] (the input log) and [`outcome`] (the output log).

pub mod action;
pub mod bounded_reply;
pub mod bounds;
pub mod checkpoint;
pub mod command_origin;
pub mod effects_frame;
pub mod entry;
pub mod event;
pub mod fleet;
pub mod frame;
pub mod host;
pub mod id;
pub mod json;
pub mod minutes;
pub mod mutation_testing;
pub mod on_health_failure;
pub mod outcome;
pub mod position;
pub mod record_deduplication;
pub mod rejection;
pub mod rollback_fault;
pub mod rollout;
pub mod snapshot;
pub mod subject;
pub mod turn_rows;
pub mod wire;

mod hidden_characters;
mod internally_tagged;
mod str_deserialize;
mod time;

pub use action::{Gate, Hold, PlanAction};
pub use checkpoint::{CheckpointRef, Checkpoints};
pub use command_origin::{Actor, ActorKind, CommandOrigin, SignatureCheck};
pub use entry::{Entry, EntryBody, OperatorCommand, Producer, StoredAt};
pub use event::{HostEvent, HostEventBody};
pub use frame::{InputFrame, OutputFrame};
pub use hidden_characters::hidden_character;
pub use host::{HostRecord, HostState, ProbeMode, ProbeStatus};
pub use id::{
    ChannelName, ChannelRef, ClosureHash, Hostname, HostnameError, ManifestHash, ProbeName,
    RolloutId,
};
pub use minutes::Minutes;
pub use on_health_failure::OnHealthFailure;
pub use outcome::{Accepted, Decision, Effect, Outcome};
pub use position::{InputMark, Position};
pub use rejection::{Reason, Rejection};
pub use rollback_fault::RollbackFault;
pub use rollout::{Pinned, PinnedManifest, PinnedSet, RolloutEvent, RolloutRecord, RolloutState};
pub use time::column_time;

/// An instant in UTC. Every stored or transmitted time comes from an entry or a host, never from the
/// reader's clock.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// Version of the frame and entry layout, written in each of them.
pub const LAYOUT_VERSION: u32 = 1;
