//! `nixfleet-chaos`: injects faults into real servers and services under load, and checks that no event is
//! lost or applied twice.
//!
//! It starts every process, injects faults by a schedule that follows from a seed, and at the end compares
//! hosts, logs, a replay of the logs, tables and archive. It must never repair anything by means that an
//! operator or a supervisor would not have. Start reading at [`fault_schedule`], [`fault_injection`] and
//! [`evaluation`].
//!
//! Exit codes: 0 every check holds, 1 a check or the run itself failed, 2 wrong options, 130 interrupted.

mod archive_comparison;
mod args;
mod db_verify;
mod evaluation;
mod event_accounting;
mod fault;
mod fault_injection;
mod fault_schedule;
mod fleet;
mod flood;
mod injection_loop;
mod latencies;
mod log_recorder;
mod log_replay;
mod log_sizes;
mod partition_logs;
mod quiescence;
mod release_publisher;
mod sampler;
mod summary;
mod takeovers;
mod testbed;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::Args;
use evaluation::RunData;
use fleet::Hosts;
use flood::Flood;
use log_recorder::Recorder;
use nixfleet_harness::program;
use nixfleet_harness::progress_printer::Printer;
use release_publisher::Publisher;
use sampler::{SampleTargets, Sampler};
use testbed::Testbed;

fn main() -> ExitCode {
    let args = Args::parse();
    let printer = Printer::new(args.run.json);
    program::run("chaos", printer, chaos(&args, printer))
}

async fn chaos(args: &Args, printer: Printer) -> Result<bool> {
    let hosts = Hosts::new(args.hosts);
    let mut testbed = Testbed::start(args, &hosts, printer).await?;
    for line in testbed.addresses() {
        printer.line(&line);
    }
    let ran = run_with_faults(args, hosts, &mut testbed, printer).await;
    if args.run.keep
        && let Err(error) = &ran
    {
        printer.line(&format!("failed: {error:#}"));
    }
    args.run.keep_running(printer).await;
    let holds = ran?;
    testbed.stop().context("stopping all processes")?;
    Ok(holds)
}

/// Runs and evaluates; false when a check fails.
async fn run_with_faults(
    args: &Args,
    hosts: Hosts,
    testbed: &mut Testbed,
    printer: Printer,
) -> Result<bool> {
    let bus = partition_logs::connect(testbed.nats.url(), &testbed.bus_users).await?;
    let mut recorder = Recorder::start(bus.clone(), printer);
    let flooding = hosts.last_host();
    let publisher = Publisher::start(hosts, testbed.operators()?, args.seed)?;
    let sampler = Sampler::start(SampleTargets {
        swarm_port: testbed.swarm_port(),
        nats_port: testbed.nats.monitor_port(),
        database_url: testbed.database.url.clone(),
    });
    let flood = args.flood.then(|| {
        let (port, hostname) = (testbed.swarm_port(), flooding);
        Flood::start(&testbed.stack, port, hostname)
    });
    let flood = flood.transpose()?;
    let injection_log = tokio::select! {
        injection_log = injection_loop::run(testbed, &sampler, (args, printer)) => injection_log?,
        // A run without complete recordings proves nothing.
        error = recorder.failed() => return Err(error),
    };
    let flood = match flood {
        Some(flood) => Some(flood.finish().await?),
        None => None,
    };
    printer.timed_line("the last release");
    let published = publisher.finish().await?;
    let (observed, open) = quiescence::wait_until_quiescent(testbed, printer).await?;
    let samples = sampler.finish().await?;
    let logs = recorder.finish().await?;
    printer.timed_line("comparing hosts, logs, replay, tables and archive");
    let run_data = RunData {
        observed,
        open,
        incidents: injection_log.incidents,
        faults: injection_log.faults,
        samples,
        logs,
        log_limit: args.log_limit(),
        flood,
    };
    let evaluation = evaluation::evaluate(testbed, &bus, run_data).await?;
    bus.close().await;
    summary::print(&evaluation, &published, (args, printer))?;
    Ok(evaluation.holds())
}
