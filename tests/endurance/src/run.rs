//! One run from the start of the servers to the report.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nixfleet_audit::Check;
use nixfleet_harness::say::Say;

use crate::args::{Args, Volume};
use crate::checks;
use crate::driver::{Driver, Ending};
use crate::rebuild;
use crate::report::{Findings, Report};
use crate::sampler::{Sampler, Targets};
use crate::world::World;

/// Runs; false when something does not hold.
///
/// # Errors
/// When something is missing. A control plane that stands still is a finding.
pub async fn run(args: &Args, say: Say) -> Result<bool> {
    let volume = args.volume();
    say.now("starting NATS, Postgres and the services");
    let mut world = World::start(volume.hosts).await?;
    let services = world.stack.instances().iter();
    let services = services.map(|instance| (instance.name(), instance.admin_port()));
    let services = services.collect();
    let start = Instant::now();
    let mut driver = Driver::new(&world, volume, (start, say));
    let sampler = Sampler::start(Targets {
        start,
        services,
        nats_port: world.nats.monitor_port(),
        store_dir: world.nats.store_dir(),
        database_url: world.database.url.clone(),
        logs: world.logs(),
        counts: driver.follower().counts(),
        reached: driver.arrivals().reached(),
        releases: driver.releases(),
        say,
    });
    let mut course = Course::default();
    let driven = drive(&world, &mut driver, (args, &sampler, say), &mut course).await;
    let stands_still = driven.err().map(|error| format!("{error:#}"));
    let samples = sampler.finish();
    let Course {
        mut checks,
        rebuilt_seconds,
    } = course;
    checks.push(checks::disk(&samples));
    checks.push(checks::ready(&samples));
    checks.push(Check::new(
        "the control plane never stands still",
        stands_still.into_iter().collect(),
    ));
    let report = Report::new(Findings {
        volume,
        releases: driver.releases().load(Ordering::Relaxed),
        answered: driver.answered(),
        phases: driver.into_phases(),
        samples,
        rebuilt_seconds,
        checks,
    });
    crate::picture::draw(&report, &args.picture())?;
    say.now(&format!("drew {}", args.picture().display()));
    report.print(say, args.json)?;
    let stopped = world.stop().await.context("stopping everything");
    // A control plane that holds must stop by itself, too; one that does not has said so already.
    if report.holds {
        stopped?;
    }
    Ok(report.holds)
}

/// What was found on the way.
#[derive(Default)]
struct Course {
    checks: Vec<Check>,
    rebuilt_seconds: Option<f64>,
}

async fn drive(
    world: &World,
    driver: &mut Driver<'_>,
    (args, sampler, say): (&Args, &Sampler, Say),
    course: &mut Course,
) -> Result<()> {
    let Volume {
        releases,
        events,
        probe_rounds,
        ..
    } = args.volume();
    for number in 1..=releases {
        driver.release(Ending::Converges).await?;
        let share = u128::from(events) * u128::from(number) / u128::from(releases);
        driver.events(u64::try_from(share)?).await?;
    }
    driver.probe_rounds(probe_rounds).await?;
    driver.arrive().await?;
    let answered = driver.answered();
    course.checks = vec![
        checks::accepted(&answered, events),
        checks::applied(world, &answered).await?,
        checks::archived(world, &answered).await?,
    ];
    if args.drop_database {
        let rebuilt = rebuild::run(world, driver, (sampler, say)).await?;
        course.rebuilt_seconds = Some(rebuilt.seconds);
        course.checks.extend(rebuilt.checks);
    }
    Ok(())
}
