//! Frames: several entries or outcomes in one message, and how they are buffered, compressed and decoded.

pub(crate) mod buffer;
pub mod compression;
pub(crate) mod decode;
pub(crate) mod decode_error;
