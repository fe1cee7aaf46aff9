//! Options that select database and user.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nixfleet_store::{DatabaseConfig, DbError, SslMode, Store};

use crate::command_error::{CommandError, InputContext};

/// The options every `db` command has.
#[derive(Debug, Args)]
pub struct Connection {
    /// `postgres://user:password@host:port/database` of the user that owns the schema
    #[arg(
        long,
        value_name = "URL",
        env = "NIXFLEET_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://nixfleet@127.0.0.1:5432/nixfleet"
    )]
    database_url: String,
    /// File that holds the URL, so that the password is in no process list; wins over the URL
    #[arg(long, value_name = "FILE", env = "NIXFLEET_DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,
    /// Schema of the tables
    #[arg(long, value_name = "NAME", default_value = "nixfleet")]
    schema: String,
    /// Whether the connection is encrypted
    #[arg(long, value_enum, default_value_t = Encryption::Disable)]
    sslmode: Encryption,
    /// Authorities of the server's certificate, with --sslmode verify-full
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encryption {
    /// In the clear, for a server on this machine
    Disable,
    /// TLS to a server whose certificate is verified
    VerifyFull,
}

impl Connection {
    /// Opens the store without connecting yet.
    ///
    /// # Errors
    /// Exit code 2: an option is at fault.
    pub fn open(&self) -> Result<Store, CommandError> {
        let config = DatabaseConfig {
            url: self.database_url.clone(),
            url_file: self.database_url_file.clone(),
            schema: self.schema.clone(),
            sslmode: match self.sslmode {
                Encryption::Disable => SslMode::Disable,
                Encryption::VerifyFull => SslMode::VerifyFull,
            },
            ca_file: self.ca_file.clone(),
            pool_size: 4,
            ..DatabaseConfig::default()
        };
        Store::connect(&config).or_input_error(|| "cannot use this database".to_owned())
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }
}

/// A database failure: exit code 3, a retry of the same command may succeed.
pub fn unreachable(error: impl Into<anyhow::Error>) -> CommandError {
    CommandError::unreachable(error.into().context("the database failed"))
}

/// Gives database errors their exit code.
pub trait Database<T> {
    /// Exit code 3.
    ///
    /// # Errors
    /// The failure.
    fn or_database(self) -> Result<T, CommandError>;
}

impl<T> Database<T> for Result<T, DbError> {
    fn or_database(self) -> Result<T, CommandError> {
        self.map_err(unreachable)
    }
}

impl<T> Database<T> for Result<T, nixfleet_store::ReadError> {
    fn or_database(self) -> Result<T, CommandError> {
        self.map_err(unreachable)
    }
}
