//! The commands, one file each.

pub mod bus;
pub mod certs;
pub mod clear_halt;
pub mod cluster;
pub mod context;
pub mod db;
pub mod debug_pure_cores;
pub mod deferrals;
pub mod events;
pub mod explain;
pub mod keygen;
pub mod list_hosts;
pub mod list_rollouts;
pub mod release;
pub mod revoke;
pub mod status;
pub mod unquarantine;
pub mod verify;
