//! Models of the servers, with their guarantees and their failures.

pub mod broker;
pub mod database;
pub mod lease_bucket;
pub mod log_id;
pub mod object_store;
pub mod server_call;
pub mod stream;

pub use broker::Broker;
pub use database::{ArchiveMark, Backup, Database, DispatchRow, RecordedPositions, Restore, Turn};
pub use log_id::LogId;
pub use server_call::{CallResult, Connection, ServerReply, ServerRequest};
