//! Checkpoints: the state of one partition as one compressed object that is named by the hash of its bytes.
//!
//! Pure. Must never know where objects are kept, nor what the fold decides. Start reading at [`encode`],
//! then [`Checkpoint::decode`].
//!
//! Source: docs/storage.md, checkpoints.

mod decode;
mod encode;
mod format;

use sha2::{Digest as _, Sha256};

pub use decode::{Checkpoint, CheckpointError};
pub use encode::{CheckpointIdentity, EncodeError, EncodedCheckpoint, encode};

/// Version of the checkpoint format.
pub const VERSION: u32 = 1;

/// Longest line in bytes; the budgets of a rollout name each of its hosts.
const LINE_BYTES_MAX: u64 = 512 * 1024 * 1024;

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
