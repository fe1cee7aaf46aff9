//! A checkpoint: everything the log of one partition has led to, as one compressed object that is named
//! by the hash of its bytes.
//!
//! Pure. Must never know where objects are kept, nor what the fold decides. Start reading at
//! [`encode`], then [`Checkpoint::decode`].
//!
//! Source: docs/storage.md, checkpoints.

mod decode;
mod encode;
mod format;

use sha2::{Digest as _, Sha256};

pub use decode::{Checkpoint, CheckpointError};
pub use encode::{CheckpointIdentity, EncodeError, EncodedCheckpoint, encode};

/// Version of the form of a checkpoint.
pub const VERSION: u32 = 1;

/// Most bytes of one line: the budgets of a rollout name each of its hosts.
const LINE_BYTES_MAX: u64 = 512 * 1024 * 1024;

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
