//! The servers as models: what they promise, and what they do when they break.

pub mod broker;
pub mod database;
pub mod kv;
pub mod log;
pub mod objects;
pub mod op;

pub use broker::Broker;
pub use database::{ArchiveMark, Backup, Database, DispatchRow, Restore, Turn};
pub use op::{Log, Op, Remembered, Reply, Server};
