//! The message bus: streams and their layout, group-committed input logs, fenced output logs, stream
//! readers, releases, checkpoints, dead letters, leases, heartbeats and liveness.
//!
//! This crate knows NATS. It does not know what entries mean: it never decides, folds or plans. Frames,
//! compression, publish results, read positions and leases are plain values that are always built; feature
//! `shell` adds the client. Start reading at [`FrameBuffer`], [`FencedPublish`] and [`LeaseCore`], then at
//! `Bus`, `Reader`, `InputPublisher` and `OutputLog`.

mod access;
mod clock;
mod config;
mod dead_letter;
mod frame;
pub mod lease;
mod message;
mod object_store;
mod publish;
mod reader;
mod retention;
mod stream_layout;

#[cfg(feature = "shell")]
mod bus;
#[cfg(feature = "shell")]
mod signed_floor;
#[cfg(feature = "shell")]
mod unstored_messages;

pub use access::{BusAccess, BusUser, ObjectBucket, Right, StreamGroup};
pub use clock::{CLOCK_OFFSET_MAX, ClockOffset};
pub use config::{BusConfig, ConfigFault};
pub use dead_letter::{DeadLetterRecord, UndecodableMessage};
pub use frame::buffer::{EntryBatch, Frame, FrameBuffer, FrameLimits};
pub use frame::compression;
pub use frame::decode::{
    MAX_OUTPUT_FRAME_BYTES, decode_effects, decode_input, decode_output, read_input, read_output,
    read_release_announcement, read_rollout_announcement,
};
pub use frame::decode_error::DecodeError;
pub use lease::{LeaseConfig, LeaseCore};
pub use message::{LastFrame, Message, StreamIdentity};
pub use object_store::obsolete_checkpoints::{StoredCheckpoint, obsolete_checkpoints};
pub use publish::error::{AppendError, PublishError};
pub use publish::log_writer::{Fence, LogWriter};
pub use publish::message_ids::MessageIds;
pub use publish::publish_reply::{
    FenceCheck, FencedDecision, FencedPublish, LastMessage, PublishDecision, PublishRefusal,
    PublishReply,
};
pub use reader::read_position::{Arrival, LastRead, ReadPosition, SequenceGaps};
pub use retention::log_usage::{
    AGENT_EVENTS_MAX_PERCENT, LOG_PROBLEM_PERCENT, LogUsage, check_capacity,
};
pub use retention::trim::{LogHolder, LogKind, Margin, MarginLimits, NeededFrom, trim_position};
pub use stream_layout::sequence_floors::SequenceFloors;

#[cfg(feature = "shell")]
pub use {
    bus::Bus,
    bus::connections::ConnectError,
    lease::{Lease, Leases, Membership},
    object_store::checkpoints::{CheckpointStore, CheckpointStoreError},
    object_store::manifests::{
        AnnouncementsError, ManifestError, ManifestStore,
        announcements::{Announcements, EarlierAnnouncements, NewestAnnouncement},
    },
    publish::input_log::{Appended, InputPublisher},
    publish::output_log::{LastFrameError, OutputLog, Stored},
    reader::leader_reads::LeaderReadError,
    reader::read_ahead::ReadAhead,
    reader::read_error::ReadError,
    reader::stream_reader::Reader,
    signed_floor::{SignedFloor, SignedFloorError},
    stream_layout::ensure::LayoutError,
    unstored_messages::heartbeat::{HeartbeatError, Heartbeats, Responder},
    unstored_messages::liveness::{Liveness, LivenessError},
};
