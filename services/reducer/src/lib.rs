//! The owner of a partition as a plain value: taking it over, folding its input log, fencing what it
//! publishes, recovering what heartbeats prove.
//!
//! Waits for nothing and reads no clock: the shell (the program beside this library) and the
//! simulation drive it. What entries mean is decided in `nixfleet-core`. Start reading at
//! [`takeover::Takeover`] (becoming the owner), then [`owner::Owner`] (being it).

pub mod checkpointing;
pub mod ended;
pub mod folder;
pub mod guard;
pub mod item;
pub mod outbox;
pub mod owner;
pub mod pins;
pub mod readiness;
pub mod recovery;
pub mod room;
pub mod seen;
pub mod takeover;
pub mod turn;
pub mod writing;

pub use checkpointing::{CheckpointLimits, LogBytes, LogsCreated, Unwritten};
pub use ended::Ended;
pub use folder::Limits;
pub use guard::Logs;
pub use item::Item;
pub use outbox::{Outbox, Publish};
pub use owner::{Owner, OwnerConfig};
pub use pins::{Fetched, Pins};
pub use readiness::Readiness;
pub use recovery::{Asked, Progress, Recovery, Step};
pub use room::{frame_bytes, reserve_bytes};
pub use seen::Seen;
pub use takeover::{Answer, Need, Taken, Takeover};
pub use writing::{Folded, Run};
