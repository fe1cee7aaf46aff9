//! Archiving of a stream: from its messages to rows of the database.

pub mod artifacts;
mod base_checkpoint;
pub mod message_rows;
pub mod prepared_batch;
mod resume_point;
pub mod stream_archiver;
