//! One partition of the applier as a plain value: where to start, which rows and which cursor a turn
//! writes, and behind which cursor it may be written.
//!
//! Waits for nothing and talks to nobody: the shell (the program beside this library) and the
//! simulation give it frames and write what it says. Computes no domain state: an outcome carries the
//! next records. Start reading at [`follower::Follower`], then [`coalesce`](mod@coalesce).

pub mod coalesce;
pub mod cursor;
pub mod follower;
pub mod position;

pub use coalesce::{CoalesceError, coalesce, manifests_named};
pub use follower::{Batch, Follower, Frame, Turn, TurnError, batches};
pub use position::{GuardError, Logs, Start, needs_checkpoint};
