//! Process infrastructure that all services share: layered configuration, telemetry, readiness, supervised
//! tasks and graceful shutdown.
//!
//! Must never know what the services are about: no domain words, no bus, no database. Start reading at
//! [`run()`], which shows the lifetime of a process on one screen.

pub mod admin;
pub mod config;
mod harden;
pub mod metrics;
pub mod panic;
pub mod readiness;
pub mod run;
mod signals;
pub mod tasks;
pub mod telemetry;
pub mod trace_context;

pub use admin::AdminConfig;
pub use config::{Faults, ServiceConfig};
pub use readiness::Readiness;
pub use run::{Context, ServiceInfo, run};
pub use tasks::Tasks;
pub use telemetry::{LogFormat, TelemetryConfig};
pub use tokio_util::sync::CancellationToken;
