//! What the archive of a partition says its tables should hold, and where they hold something else.
//!
//! Pure: the archive comes in as frames and entries in order, the tables as rows; both may be far
//! larger than memory, only the state of the partition lies in it. Must never know where an archive
//! or a table is kept. Start reading at [`Replay::take`], then [`tables`] and [`Comparison`].

pub mod archived;
pub mod compare;
pub mod replay;
pub mod row;
pub mod tables;
pub mod unreadable;

mod later;

pub use archived::{Archived, BadRow};
pub use compare::{Comparison, Difference};
pub use replay::{Coverage, InputItem, Replay};
pub use row::Row;
pub use unreadable::Unreadable;
