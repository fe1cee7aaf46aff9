//! The message bus: streams and their layout, group-committed input logs, fenced output logs, the
//! one reader, manifests, dead letters, leases, heartbeats and liveness.
//!
//! Knows NATS and nothing of what entries mean: it never decides, folds or plans. What frames hold,
//! how they are read and what becomes of a publish are plain values, always built; feature `shell`
//! adds the client. Start reading at [`FrameBuffer`], [`FencedPublish`] and [`LeaseCore`], then at `Bus`, `Reader`,
//! `InputPublisher` and `OutputLog`.

mod config;
mod dead;
mod decode;
mod fate;
mod floors;
pub mod frame_encoding;
mod framing;
mod ids;
pub mod lease;
mod message;
mod superseded;
mod track;
mod trim;
mod writer;

#[cfg(feature = "shell")]
mod ahead;
#[cfg(feature = "shell")]
mod bus;
#[cfg(feature = "shell")]
mod checkpoints;
#[cfg(feature = "shell")]
mod connect;
#[cfg(feature = "shell")]
mod heartbeat;
#[cfg(feature = "shell")]
mod input;
#[cfg(feature = "shell")]
mod layout;
#[cfg(feature = "shell")]
mod leader;
#[cfg(feature = "shell")]
mod liveness;
#[cfg(feature = "shell")]
mod log_fill;
#[cfg(feature = "shell")]
mod manifests;
#[cfg(feature = "shell")]
mod objects;
#[cfg(feature = "shell")]
mod output;
#[cfg(feature = "shell")]
mod publish;
#[cfg(feature = "shell")]
mod reader;

pub use config::{BusConfig, ConfigFault};
pub use dead::{DeadLetter, DeadRecord};
pub use decode::{
    DecodeError, MAX_OUTPUT_FRAME_BYTES, decode_effects, decode_input, decode_output, read_input,
    read_output,
};
pub use fate::{
    AppendError, Attempt, FencedAttempt, FencedPublish, LastMessage, PublishError, Refusal, Reply,
    Settled,
};
pub use floors::Floors;
pub use framing::{Frame, FrameBuffer, FrameLimits, Run};
pub use ids::MessageIds;
pub use lease::{LeaseConfig, LeaseCore};
pub use message::{LastFrame, Message, StreamIdentity};
pub use superseded::{StoredObject, superseded};
pub use track::{Gaps, Landmark, Seen, Track};
pub use trim::{
    AGENTS_PERCENT, Holder, LogFill, LogKind, Margin, MarginLimits, Needed, PROBLEM_PERCENT,
    check_room, trim_to,
};
pub use writer::{Fence, Writer};

#[cfg(feature = "shell")]
pub use {
    ahead::ReadAhead,
    bus::Bus,
    checkpoints::{CheckpointStore, CheckpointStoreError},
    connect::ConnectError,
    heartbeat::{HeartbeatError, Heartbeats, Responder},
    input::{Appended, InputPublisher},
    layout::LayoutError,
    leader::LeaderError,
    lease::{Lease, Leases, Membership},
    liveness::{Liveness, LivenessError},
    manifests::{Announcements, AnnouncementsError, ManifestError, ManifestStore},
    output::{LastFrameError, OutputLog, Stored},
    reader::{ReadError, Reader},
};
