//! Layered configuration: defaults, then a TOML file, then the environment, then `--set` flags. A later
//! layer overrides single keys.
//!
//! A configuration is a plain serde struct. This module reports all unknown keys; `flatten` would hide
//! them, and `deny_unknown_fields` adds nothing.

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
/// `Default` is the lowest layer, so every known key has a value (or `None`) there.
pub trait ServiceConfig: Serialize + DeserializeOwned + Default + Send + Sync + 'static {
    /// Adds every violated rule to `faults`; the types are valid already.
    fn validate(&self, faults: &mut Faults);

    /// Logs and traces.
    fn telemetry(&self) -> &TelemetryConfig;

    /// The admin listener and the time to stop.
    fn admin(&self) -> &AdminConfig;

    /// Name of this instance; `None` uses the machine's name.
    fn instance(&self) -> Option<&str> {
        None
    }

    /// Dotted keys whose values are never printed. Keys that end in `password`, `secret` or `token` and
    /// passwords inside URLs are always hidden. By default the URLs of the database, whose query may
    /// contain a password.
    fn secret_keys() -> &'static [&'static str] {
        &["database.url", "database.owner_url"]
    }
}

/// The accessors of a [`ServiceConfig`] with the fields `telemetry`, `admin` and `instance`.
#[macro_export]
macro_rules! config_accessors {
    () => {
        fn telemetry(&self) -> &$crate::TelemetryConfig {
            &self.telemetry
        }

        fn admin(&self) -> &$crate::AdminConfig {
            &self.admin
        }

        fn instance(&self) -> Option<&str> {
            self.instance.as_deref()
        }
    };
}

#[cfg(test)]
mod tests;
