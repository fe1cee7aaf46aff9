//! Postgres: migrations, statements, the rows of a turn and their cursor, and what services read.
//!
//! Must never know the bus, the machines or the plan: it writes the next records it is given and
//! gives them back unchanged. Start reading at [`TurnRows`] (what a turn writes), [`Store::apply_turn`]
//! (the one way domain tables change) and [`Store::load_partition`] (the way back).
//!
//! Records restore exactly. Times of records count nanoseconds and `timestamptz` counts microseconds,
//! so each table the fold restores from keeps the record itself as `jsonb`; its typed columns are
//! written or generated from that and serve queries only. Postgres text cannot hold NUL, which a
//! hostile host may well send: see [`mod@escape`].

pub mod archive;
pub mod config;
pub mod error;
pub mod read;
pub mod rows;

mod apply;
mod cursor;
mod load;
mod migrate;
mod roles;
mod sql;
mod store;

pub use apply::EncodedRecords;
pub use apply::rebuild::{Rebuild, RebuildSession};
pub use archive::audit::{
    ArchivedMessage, ArchivedStream, Audit, AuditScope, AuditSession, Generation, MessageReader,
    MessageRow, TableReader, TableRow,
};
pub use archive::{ArchiveBatch, ArchiveCursor, ArchiveMark, ArchiveRow};
pub use config::{DatabaseConfig, SslMode};
pub use error::{
    ApplyError, ArchiveError, ConnectError, DbError, DivergentSchema, MigrateError, ReadError,
    RebuildError,
};
pub use migrate::MigrationReport;
pub use read::{
    Deferral, DispatchRow, DispatchSnapshot, EventPage, EventView, HostDetail, HostKey, HostView,
    RolloutFilter, RolloutView, SeenHost,
};
pub use roles::{Existing, Role};
pub use rows::{
    Applied, BlockChange, BlockKey, DispatchChange, FailureSet, HostChange, OpenedRollout,
    ProbeKey, QuarantineKey, RolloutChange, Stamp, TurnRows,
};
pub use sql::escape;
pub use store::Store;
