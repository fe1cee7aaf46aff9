//! What the archive of a partition says its tables should hold, and where they hold something else.
//!
//! Pure: the archive comes in as frames and entries in order, the tables as rows; both may be far
//! larger than memory, only the state of the partition lies in it. Must never know where an archive
//! or a table is kept. Start reading at [`Replay::take`], then [`tables`] and [`Comparison`].

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
