//! Replays the archive of a partition, and compares the expected rows with the tables.
//!
//! Pure: the caller supplies frames, entries and rows in order. Archive and tables may exceed the memory;
//! only the state of the partition is in it. Must never know the storage of archive and tables. Start
//! reading at [`Replay::apply_frame`], then [`expected_rows`] and [`Comparison`].

pub mod archive_rows;
pub mod expected_rows;
pub mod replay;
pub mod replay_error;
pub mod row;
pub mod row_comparison;

mod deferred_records;

pub use archive_rows::{ArchiveRow, ArchiveRowError};
pub use replay::{Coverage, InputItem, Replay};
pub use replay_error::ReplayError;
pub use row::Row;
pub use row_comparison::{Comparison, Difference};
