//! Recovery after a loss: each page of docs/operations/recovery as a test, on real servers and with
//! all services running.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod both_gone;
pub mod db_command;
mod log_trimmed;
mod nats_gone;
mod postgres_gone;
mod restored_backup;
mod verify_and_rebuild;
