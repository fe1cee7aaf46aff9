//! Real servers and real service processes for tests and the demo.
//!
//! Every function either works or fails with the remedy in its message; nothing is skipped. The harness
//! starts, watches, kills and restarts processes, and creates keys, certificates and signed releases. It
//! must never depend on the decisions of a rollout: assertions belong to the tests.
//!
//! Start reading at [`shared_servers`]; processes are in [`process`], servers in [`nats`] and [`postgres`].

pub mod agent_event_sequence;
pub mod binaries;
pub mod canary_fleet;
pub mod console_key;
pub mod flooding_host;
pub mod incompressible_text;
pub mod monitoring;
pub mod nats;
pub mod operator;
pub mod pki;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod program;
pub mod progress_printer;
pub mod proxy;
pub mod release;
pub mod scratch;
pub mod scripted_agent;
pub mod service;
pub mod shared_servers;
pub mod stack;
pub mod swarm_process;
pub mod synthetic_release;
pub mod test_clock;
pub mod wait;
pub mod watchdog;

pub use flooding_host::{FloodAnswers, FloodingHost};
pub use incompressible_text::incompressible_text;
pub use nats::Nats;
pub use operator::Operator;
pub use postgres::{Database, Postgres};
pub use proxy::{Proxy, ProxyMode};
pub use scripted_agent::ScriptedAgent;
pub use service::Service;
pub use shared_servers::{
    TestNamespace, shared_nats, shared_postgres, test_namespace, unique_prefix,
};
pub use stack::{Stack, StackConfig};
pub use swarm_process::{Swarm, SwarmConfig};
pub use test_clock::{CLOCK_SETTING, TestClock};
pub use wait::wait_for;
