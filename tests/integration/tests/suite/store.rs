//! The store on a real Postgres.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod archive;
mod archive_ahead;
mod fixtures;
mod migrations;
mod reads;
mod restore;
mod roles;
mod round_trip;
mod schema;
mod silent;
mod tls;
mod turns;
