//! Models of the servers, with their guarantees and their failures.

pub mod broker;
pub mod database;
pub mod lease_bucket;
pub mod object_store;
pub mod partition_log;
pub mod server_call;
pub mod stream;

pub use broker::Broker;
pub use database::{ArchiveMark, Backup, Database, DispatchRow, RecordedPositions, Restore, Turn};
pub use partition_log::Log;
pub use server_call::{CallResult, Connection, ServerReply, ServerRequest};
