//! Ownership of a partition without IO: taking it over, folding its input log, fencing the frames of
//! its output log, and recovering the transitions that heartbeats prove.
//!
//! Nothing here waits or reads a clock. The shell (the binary of this package) and the simulation
//! drive it; `nixfleet-core` decides what an entry means. Start reading at
//! [`Takeover`], then [`Owner`].

pub mod batch_decoding;
pub mod heartbeats;
pub mod input;
pub mod output;
pub mod ownership;

pub use heartbeats::heartbeat_recovery::{HeartbeatDecision, Recovery, RecoveryStep, StepResult};
pub use heartbeats::last_seen::LastSeen;
pub use input::fold::FoldLimits;
pub use input::input_item::InputItem;
pub use input::pinned_manifests::{ManifestFetch, PinnedManifests};
pub use output::frame_builder::{BuiltFrame, FrameBuilder};
pub use output::log_capacity::{frame_bytes, reserve_bytes};
pub use output::publish_queue::{FencedFrame, PublishQueue};
pub use ownership::checkpoint_schedule::{
    CheckpointLimits, CheckpointState, LogBytes, LogCreationTimes,
};
pub use ownership::owner::{Owner, OwnerConfig};
pub use ownership::ownership_end::OwnershipEnd;
pub use ownership::readiness::Readiness;
pub use ownership::takeover::log_check::PartitionLogs;
pub use ownership::takeover::{HydratedPartition, Takeover, TakeoverRequest, TakeoverResponse};
