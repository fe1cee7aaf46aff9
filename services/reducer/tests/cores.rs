//! The plain values of the reducer, driven as the shell drives them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "cores/checkpoints.rs"]
mod checkpoints;
#[path = "cores/left.rs"]
mod left;
#[path = "cores/owner.rs"]
mod owner;
#[path = "cores/recovery.rs"]
mod recovery;
#[path = "cores/takeover.rs"]
mod takeover;
#[path = "cores/world.rs"]
mod world;
