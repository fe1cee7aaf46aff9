//! The store on a real Postgres.

mod archive;
mod fixtures;
mod reads;
mod round_trip;
mod schema;
mod turns;
