//! Recovery after a loss: each page of docs/operations/recovery as a test, on real servers and with
//! all services running.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

pub mod db_command_runner;
mod log_trimmed;
mod nats_and_postgres_lost;
mod nats_lost;
mod output_log_damaged;
mod postgres_lost;
mod restored_backup;
mod tampered_archive;
mod verify_and_rebuild;
