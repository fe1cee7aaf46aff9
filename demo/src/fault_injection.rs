//! Faults injected during the rollout of the fixed release.

use std::time::Duration;

use anyhow::{Context, Result};
use nixfleet_audit::database::SCHEMA;
use nixfleet_harness::{Service, postgres};

use crate::args::Args;
use crate::testbed::Testbed;
use nixfleet_harness::progress_printer::Printer;

/// Time between killing the services and restarting them while the database is wiped.
const AWAY: Duration = Duration::from_secs(1);

/// The disruptions that the options select.
#[derive(Debug, Clone, Copy)]
pub struct FaultInjection {
    kill: Option<Service>,
    wipe: bool,
}

impl FaultInjection {
    /// The disruptions of the options; `None` without any.
    pub fn from_args(args: &Args) -> Option<Self> {
        let disruption = Self {
            kill: args.kill,
            wipe: args.wipe_postgres,
        };
        (disruption.kill.is_some() || disruption.wipe).then_some(disruption)
    }

    /// Injects the fault, and restarts the stopped processes.
    pub async fn inject(self, testbed: &mut Testbed, printer: &Printer) -> Result<()> {
        if let Some(service) = self.kill {
            printer.line(&format!(
                "kill -9 {service}-0; the supervisor starts it again"
            ));
            testbed.kill(service)?;
        }
        if self.wipe {
            printer.line("the services are killed, the database schema is dropped");
            testbed.stack.kill_all()?;
            let drop_schema = format!("DROP SCHEMA {SCHEMA} CASCADE");
            postgres::execute(&testbed.database.url, &drop_schema)
                .await
                .context("wiping the database")?;
            tokio::time::sleep(AWAY).await;
            printer.line("the services are started again");
            testbed.stack.start_all()?;
        }
        Ok(())
    }
}
