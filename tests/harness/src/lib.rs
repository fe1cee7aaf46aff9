//! Real servers and real service processes for tests and the demo.
//!
//! Everything here either works or fails with the remedy in its message; nothing is skipped. It knows
//! how to start, watch, kill and restart processes and how to make keys, certificates and signed
//! releases. It must never know what a rollout decides: assertions belong to the tests.
//!
//! Start reading at [`scope`]; processes are in [`process`], servers in [`nats`] and [`postgres`].

pub mod agent_script;
pub mod dev;
pub mod monitor;
pub mod nats;
pub mod noise;
pub mod operator;
pub mod pki;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod release;
pub mod say;
pub mod scope;
pub mod scratch;
pub mod scripted_agent;
pub mod service;
pub mod stack;
pub mod swarm;
pub mod synthetic_release;
pub mod wait;
pub mod watchdog;

pub use nats::Nats;
pub use noise::noise;
pub use operator::Operator;
pub use postgres::{Database, Postgres};
pub use proxy::{Mode, Proxy};
pub use scope::{Scope, scope, shared_nats, shared_postgres};
pub use scripted_agent::ScriptedAgent;
pub use service::Service;
pub use stack::{Stack, StackConfig};
pub use swarm::{Swarm, SwarmConfig};
pub use wait::wait_for;
