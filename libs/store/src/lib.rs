//! Postgres: migrations, statements, the rows and the cursor of a turn, and the reads of services.
//!
//! Must never know the bus, the machines or the plan: it stores the records it is given and returns them
//! unchanged. Start reading at [`TurnRows`] (the rows of a turn), [`Store::apply_turn`] (the only write to
//! domain tables) and [`Store::load_partition`] (reading them back).
//!
//! Records are restored exactly. Times of records have nanoseconds and `timestamptz` has microseconds, so
//! each table that the fold restores from stores the record itself as `jsonb`; the typed columns are
//! derived from it and serve queries only. Postgres text cannot contain NUL, which a hostile host may send:
//! see [`mod@nul_escape`].

pub mod archive;
pub mod config;
pub mod error;
pub mod read;

mod apply;
mod binary_copy;
mod cursor;
mod load;
mod migrate;
mod parameter_encoding;
mod prepared_statement;
mod roles;
mod store;
mod stored_json;
mod transaction;

pub use apply::EncodedRecords;
pub use apply::apply_result::ApplyResult;
pub use apply::rebuild::{Rebuild, RebuildSession};
pub use archive::audit::{
    ArchivedMessage, ArchivedStream, Audit, AuditScope, AuditSession, Generation, MessageReader,
    MessageRow, TableReader, TableRow,
};
pub use archive::{ArchiveBatch, ArchiveCursor, ArchiveMark, ArchiveRow};
pub use config::{DatabaseConfig, SslMode};
pub use cursor::CoveredSequencesSource;
pub use error::{
    ApplyError, ArchiveError, ConnectError, DbError, DivergentSchema, MigrateError, ReadError,
    RebuildError,
};
pub use migrate::MigrationReport;
pub use nixfleet_proto::turn_rows::{
    BlockChange, BlockKey, DispatchChange, FailureSet, HostChange, OpenedRollout, ProbeKey,
    QuarantineKey, RolloutChange, Stamp, TurnRows,
};
pub use parameter_encoding::nul_escape;
pub use read::{
    Deferral, DispatchRow, EventPage, EventView, GatewaySnapshot, HostDetail, HostKey, HostView,
    Membership, RolloutFilter, RolloutView, SeenHost,
};
pub use roles::{ExistingUser, Role};
pub use store::Store;
