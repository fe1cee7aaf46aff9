//! Layered configuration: defaults, then a TOML file, then the environment, then `--set` flags; a
//! later layer wins key by key.
//!
//! A configuration is a plain serde struct. Unknown keys are found here, all of them; `flatten` would
//! hide them, and `deny_unknown_fields` adds nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::AdminConfig;
use crate::telemetry::TelemetryConfig;

mod faults;
mod load;
mod print;

pub use faults::{Fault, Faults};
pub use load::{Sources, load};
pub use print::{redacted, to_toml};

/// The configuration of one service.
///
/// `Default` gives the lowest layer, so each key a service knows has a value (or `None`) there.
pub trait ServiceConfig: Serialize + DeserializeOwned + Default + Send + Sync + 'static {
    /// Adds every violated rule to `faults`; types are already right.
    fn validate(&self, faults: &mut Faults);

    /// Logs and traces.
    fn telemetry(&self) -> &TelemetryConfig;

    /// The listener for health and metrics, and the time to stop.
    fn admin(&self) -> &AdminConfig;

    /// Name of this instance; `None` takes the machine's.
    fn instance(&self) -> Option<&str> {
        None
    }

    /// Dotted keys whose values must never be printed. Keys that end in `password`, `secret` or
    /// `token` and passwords inside URLs are always hidden. By default the URLs of the database, whose query
    /// may hold a password.
    fn secret_keys() -> &'static [&'static str] {
        &["database.url", "database.owner_url"]
    }
}

#[cfg(test)]
mod tests;
