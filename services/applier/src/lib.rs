//! Updates of one partition's tables without IO: where to start in the output log, and the rows and
//! the cursor that each turn writes.
//!
//! The shell (the binary of this package) and the simulation pass frames in and write the turns.
//! Nothing here computes domain state: an outcome carries the next records. Start reading at
//! [`turn_builder::TurnBuilder`], then [`row_builder`].

pub mod cursor;
pub mod log_check;
pub mod row_builder;
pub mod turn_builder;

pub use log_check::{LogMismatch, PartitionLogs, StartPosition, needs_checkpoint};
pub use row_builder::{RowError, build_rows, opened_manifests};
pub use turn_builder::{FrameBatch, SequencedFrame, Turn, TurnBuilder, TurnError, split_batches};
