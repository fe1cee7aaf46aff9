//! The services, by name.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

/// A service of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Gateway for agents.
    Ingest,
    /// Gateway for people and pipelines.
    Console,
    /// Folds the log.
    Reducer,
    /// Decides.
    Planner,
    /// Writes the tables.
    Applier,
    /// Archives the streams.
    Eventlog,
}

impl Service {
    /// All services; the applier first, because it migrates the schema.
    pub const ALL: [Self; 6] = [
        Self::Applier,
        Self::Eventlog,
        Self::Reducer,
        Self::Planner,
        Self::Ingest,
        Self::Console,
    ];

    /// Name of the service, as in `nixfleet-<name>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Console => "console",
            Self::Reducer => "reducer",
            Self::Planner => "planner",
            Self::Applier => "applier",
            Self::Eventlog => "eventlog",
        }
    }

    /// Name of its program.
    pub fn program(self) -> String {
        format!("nixfleet-{}", self.name())
    }

    /// The environment variable of a dotted key.
    pub fn variable(self, key: &str) -> String {
        let key = key.replace('.', "__");
        format!("NIXFLEET_{}__{key}", self.name()).to_ascii_uppercase()
    }

    /// True for the services with an HTTPS listener.
    pub fn is_gateway(self) -> bool {
        matches!(self, Self::Ingest | Self::Console)
    }

    /// True for the services that hold leases.
    pub fn has_lease(self) -> bool {
        match self {
            Self::Ingest | Self::Console => false,
            Self::Reducer | Self::Planner | Self::Applier | Self::Eventlog => true,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for service in Self::ALL {
            if service.name() == text {
                return Ok(service);
            }
        }
        bail!("{text:?} is none of ingest, console, reducer, planner, applier, eventlog")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_the_names_read_by_services() {
        assert_eq!(
            Service::Ingest.variable("tls.cert_file"),
            "NIXFLEET_INGEST__TLS__CERT_FILE"
        );
        assert_eq!("planner".parse::<Service>().unwrap(), Service::Planner);
        assert!("nats".parse::<Service>().is_err());
    }
}
