//! Errors of the store: one enum per operation boundary, each with the question whether a retry may help.

use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// Why the database did not execute a statement.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum DbError {
    #[error("getting a database connection")]
    Pool(#[source] PoolError),
    #[error("the database does not answer within {waited:?}")]
    Silent { waited: Duration },
    #[error(
        "the database user may not run the statement {statement}; the owner of the schema grants \
         each service what it needs with `nixfleet db migrate`"
    )]
    Forbidden {
        /// Name of the statement, a file in `sql/`.
        statement: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("running the statement {statement}")]
    Statement {
        /// Name of the statement, a file in `sql/`.
        statement: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
}

impl DbError {
    pub(crate) fn statement(statement: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| match source.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Forbidden { statement, source },
            _ => Self::Statement { statement, source },
        }
    }

    /// True when a retry may succeed: connection failures, serialization failures, shutdown, exhausted
    /// resources, a timeout, or a schema, database, user or grant that does not exist yet.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Pool(PoolError::Backend(source)) => is_transient(source) || is_absent(source),
            Self::Forbidden { .. } | Self::Silent { .. } => true,
            Self::Pool(PoolError::Timeout(_)) => true,
            Self::Pool(
                PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_),
            ) => false,
            Self::Statement { source, .. } => is_transient(source) || is_schema_missing(source),
        }
    }

    /// True when tables are missing, because nobody migrated yet or the schema was dropped.
    pub fn schema_missing(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Forbidden { .. } | Self::Silent { .. } => false,
            Self::Statement { source, .. } => is_schema_missing(source),
        }
    }

    pub(crate) fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Self::Pool(_) | Self::Silent { .. } => None,
            Self::Forbidden { source, .. } | Self::Statement { source, .. } => source.code(),
        }
    }
}

/// An error without an SQL state comes from the connection, unless the driver could not encode or decode a
/// value, which no retry fixes.
fn is_transient(error: &tokio_postgres::Error) -> bool {
    let Some(state) = error.code() else {
        return error.is_closed() || is_io(error);
    };
    const CODES: [SqlState; 7] = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::QUERY_CANCELED,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    CODES.contains(state) || state.code().starts_with("08") || state.code().starts_with("53")
}

/// A new server answers a moment before its users and databases exist.
fn is_absent(error: &tokio_postgres::Error) -> bool {
    const CODES: [SqlState; 3] = [
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_PASSWORD,
    ];
    error.code().is_some_and(|code| CODES.contains(code))
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        if current.is::<std::io::Error>() {
            return true;
        }
        cause = current.source();
    }
    // The driver does not expose its connect timeout; only the text tells.
    error.to_string().contains("timed out") || error.to_string().contains("timeout")
}

/// Dropping a schema under a running statement causes any of these errors.
fn is_schema_missing(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else {
        return false;
    };
    const CODES: [SqlState; 3] = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    CODES.contains(db.code())
        || (*db.code() == SqlState::INTERNAL_ERROR
            && db.message().contains("could not open relation"))
        || (*db.code() == SqlState::INTERNAL_ERROR && db.message().contains("cache lookup failed"))
}

/// Opening the store failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ConnectError {
    #[error("reading the database URL from {path}")]
    UrlFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("parsing the database URL")]
    Url(#[source] tokio_postgres::Error),
    #[error("reading the authorities of the database server from {path}: {reason}")]
    Authority { path: String, reason: String },
    #[error("database configuration: {0}")]
    Config(String),
    #[error("building the connection pool")]
    Build(#[source] deadpool_postgres::BuildError),
}

/// Other migrations than those of this binary built the schema. Names the first difference.
#[derive(Debug, thiserror::Error)]
#[error(
    "the migrations that built the schema and those of this program differ at {0}: run the release \
     that built the schema, or give this release an empty database as described in \
     docs/operations/recovery-postgres-gone.md"
)]
pub struct DivergentSchema(pub(crate) String);

/// A sequence is larger than a `bigint` column.
#[derive(Debug, thiserror::Error)]
#[error("{field} {value} is above {max}", max = i64::MAX)]
pub struct OutOfRange {
    /// Name of the sequence.
    pub field: &'static str,
    /// The sequence.
    pub value: u64,
}

/// Migrating failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum MigrateError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Divergent(#[from] DivergentSchema),
    #[error("applying the migrations")]
    Refinery(#[source] Box<refinery::Error>),
}

impl From<refinery::Error> for MigrateError {
    fn from(error: refinery::Error) -> Self {
        use refinery::error::Kind;
        if let Kind::DivergentVersion(at, _) | Kind::MissingVersion(at) = error.kind() {
            return DivergentSchema(at.to_string()).into();
        }
        Self::Refinery(Box::new(error))
    }
}

impl MigrateError {
    /// True when a retry may succeed.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Db(error) => error.retryable(),
            Self::Divergent(_) => false,
            Self::Refinery(error) => {
                let refinery::error::Kind::Connection(_, source) = error.kind() else {
                    return false;
                };
                source
                    .downcast_ref::<tokio_postgres::Error>()
                    .is_some_and(|source| is_transient(source) || is_schema_missing(source))
            }
        }
    }
}

/// Reading failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ReadError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the row {key} of {table} is corrupt")]
    Corrupt {
        table: &'static str,
        key: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the schema is at version {found}, this binary needs {wanted}: the applier migrates it"
    )]
    SchemaOutdated { found: i32, wanted: i32 },
    #[error(transparent)]
    Divergent(#[from] DivergentSchema),
}

impl ReadError {
    /// True when a retry may succeed.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Db(error) => error.retryable(),
            Self::Corrupt { .. } | Self::Divergent(_) => false,
            Self::SchemaOutdated { .. } => true,
        }
    }

    /// True when tables are missing.
    pub fn schema_missing(&self) -> bool {
        matches!(self, Self::Db(error) if error.schema_missing())
    }
}

/// Applying a turn failed; nothing of it is stored.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ApplyError {
    /// Another applier moved it, or the tables were reset.
    #[error("the cursor of partition {partition} is not at output sequence {expected}")]
    Conflict { partition: u16, expected: u64 },
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    #[error("encoding a record")]
    Encode(#[source] serde_json::Error),
}

impl ApplyError {
    /// True when a retry may succeed; after a conflict, read the cursor again instead.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Db(error) => error.retryable(),
            Self::Conflict { .. } | Self::OutOfRange(_) | Self::Encode(_) => false,
        }
    }

    /// True when tables are missing.
    pub fn schema_missing(&self) -> bool {
        matches!(self, Self::Db(error) if error.schema_missing())
    }
}

/// A rebuild cannot begin; nothing has changed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum RebuildError {
    #[error("an applier has {connections} connections to this database; stop all appliers first")]
    InUse { connections: i64 },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Archiving failed; nothing of the batch is stored.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ArchiveError {
    /// The cursor was not at the start of the batch: another writer moved it, or the tables were reset.
    /// Another writer moved it, or the tables were reset.
    #[error("the archive cursor of {stream} is not at sequence {expected}")]
    Conflict { stream: String, expected: u64 },
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl ArchiveError {
    /// True when a retry may succeed; after a conflict, read the cursor again instead.
    pub fn retryable(&self) -> bool {
        match self {
            // The next attempt creates the missing day.
            Self::Db(error) => {
                error.retryable() || error.sql_state() == Some(&SqlState::CHECK_VIOLATION)
            }
            Self::Conflict { .. } | Self::OutOfRange(_) => false,
        }
    }

    /// True when tables are missing.
    pub fn schema_missing(&self) -> bool {
        matches!(self, Self::Db(error) if error.schema_missing())
    }
}
