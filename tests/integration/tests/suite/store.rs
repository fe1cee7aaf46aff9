//! The store on a real Postgres.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod archive;
mod archive_pipelining;
mod checkpoint_restore;
mod database_roles;
mod migrations;
mod read_queries;
mod record_round_trip;
pub mod sample_rollouts;
mod schema;
mod tls;
mod turn_transactions;
mod unresponsive_server;
