//! A run from the start of the servers to the summary.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nixfleet_audit::Check;
use nixfleet_harness::progress_printer::Printer;

use crate::args::{Args, Volume};
use crate::database_rebuild;
use crate::final_checks;
use crate::rollout_driver::{Driver, ExpectedEnd};
use crate::sampler::{Sampler, Targets};
use crate::summary::{RunData, Summary};
use crate::testbed::Testbed;

/// Runs; false when something does not hold.
///
/// # Errors
/// When a server or program is missing. A stalled control plane is a failed check.
pub async fn run(args: &Args, printer: Printer) -> Result<bool> {
    let volume = args.volume();
    printer.timed_line("starting NATS, Postgres and the services");
    let mut testbed = Testbed::start(volume.hosts).await?;
    let services = testbed.stack.instances().iter();
    let services = services.map(|instance| (instance.name(), instance.admin_port()));
    let services = services.collect();
    let start = Instant::now();
    let mut driver = Driver::new(&testbed, volume, (start, printer));
    let sampler = Sampler::start(Targets {
        start,
        services,
        nats_port: testbed.nats.monitor_port(),
        store_dir: testbed.nats.store_dir(),
        database_url: testbed.database.url.clone(),
        logs: testbed.logs(),
        counts: driver.follower().counts(),
        progress: driver.progress_tracker().progress(),
        releases: driver.releases(),
        printer,
    });
    let mut run_checks = RunChecks::default();
    let driven = drive(
        &testbed,
        &mut driver,
        (args, &sampler, printer),
        &mut run_checks,
    )
    .await;
    let stands_still = driven.err().map(|error| format!("{error:#}"));
    let samples = sampler.finish();
    let RunChecks {
        mut checks,
        rebuilt_seconds,
    } = run_checks;
    checks.push(final_checks::disk(&samples));
    checks.push(final_checks::ready(&samples));
    checks.push(Check::new(
        "the control plane never stalls",
        stands_still.into_iter().collect(),
    ));
    let summary = Summary::new(RunData {
        volume,
        releases: driver.releases().load(Ordering::Relaxed),
        outcome_counts: driver.outcome_counts(),
        phases: driver.into_phases(),
        samples,
        rebuilt_seconds,
        checks,
    });
    crate::plot::draw(&summary, &args.picture())?;
    printer.timed_line(&format!("drew {}", args.picture().display()));
    summary.print(printer, args.json)?;
    let stopped = testbed.stop().await.context("stopping all processes");
    // A control plane that passed must also stop on request; one that failed is reported already.
    if summary.holds {
        stopped?;
    }
    Ok(summary.holds)
}

/// Checks collected while the run is driven.
#[derive(Default)]
struct RunChecks {
    checks: Vec<Check>,
    rebuilt_seconds: Option<f64>,
}

async fn drive(
    testbed: &Testbed,
    driver: &mut Driver<'_>,
    (args, sampler, printer): (&Args, &Sampler, Printer),
    run_checks: &mut RunChecks,
) -> Result<()> {
    let Volume {
        releases,
        events,
        probe_rounds,
        ..
    } = args.volume();
    for number in 1..=releases {
        driver.release(ExpectedEnd::Converges).await?;
        let share = u128::from(events) * u128::from(number) / u128::from(releases);
        driver.events(u64::try_from(share)?).await?;
    }
    driver.probe_rounds(probe_rounds).await?;
    driver.wait_until_applied().await?;
    let outcome_counts = driver.outcome_counts();
    run_checks.checks = vec![
        final_checks::accepted(&outcome_counts, events),
        final_checks::applied(testbed, &outcome_counts).await?,
        final_checks::archived(testbed, &outcome_counts).await?,
    ];
    if args.drop_database {
        let rebuilt = database_rebuild::run(testbed, driver, (sampler, printer)).await?;
        run_checks.rebuilt_seconds = Some(rebuilt.seconds);
        run_checks.checks.extend(rebuilt.checks);
    }
    Ok(())
}
