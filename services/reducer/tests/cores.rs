//! The plain values of the reducer, driven as the shell drives them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "cores/checkpoints.rs"]
mod checkpoints;
#[path = "cores/heartbeat_recovery.rs"]
mod heartbeat_recovery;
#[path = "cores/owner.rs"]
mod owner;
#[path = "cores/record_deduplication.rs"]
mod record_deduplication;
#[path = "cores/simulated_partition.rs"]
mod simulated_partition;
#[path = "cores/takeover.rs"]
mod takeover;
