//! `nixfleet-bench`: every stage against the bare work it cannot go below, in one run on one machine.
//!
//! It must never judge by absolute time alone: a stage and its limit are measured alternately, and
//! the ratio is what counts. Start reading at [`Stage`].

mod clock;
mod fleet;
mod life;
mod memory;
mod plot;
mod report;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use report::Report;
use servers::{Options, block_on, gate};

/// Measures stages and their limits.
#[derive(Debug, Parser)]
#[command(name = "nixfleet-bench")]
struct Arguments {
    /// Stages to measure; all of them when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    stage: Vec<Stage>,
    /// Where to write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for pictures: growth.svg, costs over sizes of fleets, and stages.svg, how near stages come
    /// to their limits.
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Sizes of fleets for the stages that grow with them.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    hosts: Vec<usize>,
    /// How often a stage and its limit are measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for which a load is kept up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Folds the lives of that many hosts and prints the memory it took; used by the stage `growth`.
    #[arg(long, hide = true)]
    probe_memory: Option<usize>,
    /// Answers every event with 204: port, certificate, key, authority; used by the stages `ingest-…`.
    #[arg(long, hide = true, value_delimiter = ',')]
    serve_nothing: Vec<String>,
}

/// Hosts of the stage `fold`, unless every size asked for is smaller.
const FOLD_HOSTS: usize = 10_000;

/// Hosts of the stages on servers, unless every size asked for is smaller.
const SERVER_HOSTS: usize = 10_000;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Entries in memory, one core, against decoding alone.
    Fold,
    /// Plans in memory, against one pass over the records.
    Planner,
    /// Costs of fleets of growing size.
    Growth,
    /// The reducer, log to log, against the same pull and publish without a fold.
    Reducer,
    /// The applier, output log to tables, against bare statements with the same rows.
    Applier,
    /// The event log, all streams to the archive, against a bare COPY of the same rows.
    Eventlog,
    /// The gateway, one event per request, against a server that answers without a log.
    IngestSingle,
    /// The gateway, arrays of events.
    IngestArray,
    /// Agents, gateway, reducer, tables and archive together.
    EndToEnd,
    /// From the last host of a wave to the agents of the next one.
    Dispatch,
    /// From a release of a whole fleet to the first dispatch, against a COPY of its records.
    Open,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nixfleet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(hosts) = arguments.probe_memory {
        return memory::growth::probe(hosts);
    }
    if !arguments.serve_nothing.is_empty() {
        return block_on(servers::nothing::serve(&arguments.serve_nothing));
    }
    let mut report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        figures: Vec::new(),
    };
    let largest = arguments.hosts.iter().copied().max().unwrap_or(FOLD_HOSTS);
    let on_servers = Options {
        hosts: largest.min(SERVER_HOSTS),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    for stage in Stage::value_variants() {
        if !arguments.stage.is_empty() && !arguments.stage.contains(stage) {
            continue;
        }
        let figures = match stage {
            Stage::Fold => memory::fold::run(largest.min(FOLD_HOSTS), arguments.rounds),
            Stage::Planner => memory::planner::run(&arguments.hosts, arguments.rounds),
            Stage::Growth => memory::growth::run(&arguments.hosts, arguments.rounds.min(3)),
            Stage::Reducer => block_on(servers::reducer::run(on_servers)),
            Stage::Applier => block_on(servers::applier::run(on_servers)),
            Stage::Eventlog => block_on(servers::eventlog::run(on_servers)),
            Stage::IngestSingle => block_on(gate::run(gate::SINGLE, on_servers)),
            Stage::IngestArray => block_on(gate::run(gate::ARRAY, on_servers)),
            Stage::EndToEnd => block_on(servers::whole::run(on_servers)),
            Stage::Dispatch => block_on(servers::dispatch::run(on_servers)),
            Stage::Open => block_on(servers::open::run(&arguments.hosts, arguments.rounds)),
        };
        let figures = figures.with_context(|| format!("measuring {stage:?}"))?;
        for figure in &figures {
            println!("{}", figure.line());
        }
        report.figures.extend(figures);
    }
    if let Some(path) = &arguments.plot {
        plot::draw(&report, path)?;
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).context("writing the figures")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Processor and cores, so that a figure is not read without them.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{model}, {cores} cores")
}
