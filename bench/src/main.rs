//! `nixfleet-bench`: measures every stage against its baseline, the minimal work for the same result, in one
//! run on one machine.
//!
//! It must never judge by absolute time only: a stage and its baseline are measured alternately, and the
//! result is their ratio. Start reading at [`Stage`].

mod build_comparison;
mod cpu_time;
mod in_process;
mod measurements;
mod plot;
mod synthetic_fleet;
mod with_servers;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use build_comparison::Comparison;
use measurements::BenchReport;
use nixfleet_harness::binaries::ServerBinaries;
use with_servers::{Options, block_on, ingest};

/// Measures stages and their baselines.
#[derive(Debug, Parser)]
#[command(name = "nixfleet-bench")]
struct Arguments {
    /// Stages to measure; all of them when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    stage: Vec<Stage>,
    /// Path of the measurements as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Another build to compare with: its nixfleet-bench, or the folder with it. Both measure each stage in
    /// turn, --rounds times; the output is the median ratio of the pairs and its 95 % interval, above 1
    /// where this build is better.
    #[arg(long, value_name = "PATH", conflicts_with = "plot")]
    against: Option<PathBuf>,
    /// Folder for the plots growth.svg (cost over the size of the fleet) and stages.svg (stages as parts of
    /// their baselines).
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Sizes of fleets for the stages that grow with them.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    hosts: Vec<usize>,
    /// How often a stage and its baseline are measured; a fleet of more than 200,000 hosts is opened once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for which a load is kept up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Agents of the stage `ingest-single`, each with a connection and a request open.
    #[arg(long, default_value_t = ingest::SINGLE.agents)]
    agents: usize,
    /// Folds the workload of that many hosts and prints its memory; used by the stage `growth`.
    #[arg(long, hide = true)]
    probe_memory: Option<usize>,
    /// Answers every event with 204: port, certificate, key, authority; used by the stages `ingest-…`.
    #[arg(long, hide = true, value_delimiter = ',')]
    serve_empty_replies: Vec<String>,
}

/// Hosts of the stage `fold`, unless every requested size is smaller.
const FOLD_HOSTS: usize = 10_000;

/// Hosts of the stages on servers, unless every requested size is smaller.
const SERVER_HOSTS: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Fold of decoded entries on one core; the baseline is decoding.
    Fold,
    /// The stored form of frames, in memory: size, and cost of encoding and decoding.
    Encoding,
    /// Plans in memory, against one pass over the records.
    Planner,
    /// Costs of fleets of growing size.
    Growth,
    /// Pause of the fold for a checkpoint, and time to write and read one.
    Checkpoint,
    /// The reducer, log to log, against the same pull and publish without a fold.
    Reducer,
    /// The applier, output log to tables, against bare statements with the same rows.
    Applier,
    /// The event log, all streams to the archive, against a bare COPY of the same rows.
    Eventlog,
    /// The gateway with one event per request; the baseline is a server that replies without a log.
    IngestSingle,
    /// The gateway, arrays of events.
    IngestArray,
    /// Agents, gateway, reducer, tables and archive together; the baseline is the slowest single stage.
    EndToEnd,
    /// Latency of other hosts' events while one host floods the gateway, against that without the flood.
    Flood,
    /// From the last host of a wave to the agents of the next one.
    Dispatch,
    /// From a release of a whole fleet to the first dispatch, against a COPY of its records.
    Open,
}

/// The stages that an event passes from end to end.
const EVENT_PATH: [Stage; 5] = [
    Stage::Reducer,
    Stage::Applier,
    Stage::Eventlog,
    Stage::IngestSingle,
    Stage::IngestArray,
];

impl Arguments {
    fn is_asked(&self, stage: Stage) -> bool {
        self.stage.is_empty() || self.stage.contains(&stage)
    }

    /// The selected stages in order, with their rounds. End to end is compared with the slowest single
    /// stage, so the stages of [`EVENT_PATH`] run before it, for one round unless they are selected.
    fn measured(&self) -> Vec<(Stage, usize)> {
        let rounds = |stage: Stage| {
            if self.is_asked(stage) {
                return Some((stage, self.rounds));
            }
            let is_needed = EVENT_PATH.contains(&stage) && self.is_asked(Stage::EndToEnd);
            is_needed.then_some((stage, 1))
        };
        let stages = Stage::value_variants().iter().copied();
        stages.filter_map(rounds).collect()
    }
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
        return in_process::growth::probe(hosts);
    }
    if !arguments.serve_empty_replies.is_empty() {
        return block_on(with_servers::gateway_baseline::serve(
            &arguments.serve_empty_replies,
        ));
    }
    if let Some(other) = &arguments.against {
        return compare(arguments, other);
    }
    let mut report = BenchReport {
        command: command(std::env::args().skip(1)),
        machine: machine(),
        measurements: Vec::new(),
    };
    let largest = arguments.hosts.iter().copied().max().unwrap_or(FOLD_HOSTS);
    let on_servers = Options {
        hosts: largest.min(SERVER_HOSTS),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    let single = ingest::Kind {
        agents: arguments.agents,
        ..ingest::SINGLE
    };
    for (stage, rounds) in arguments.measured() {
        let on_servers = Options {
            rounds,
            ..on_servers
        };
        let measurements = match stage {
            Stage::Fold => in_process::fold::run(largest.min(FOLD_HOSTS), rounds),
            Stage::Encoding => in_process::encoding::run(largest.min(FOLD_HOSTS), rounds),
            Stage::Planner => in_process::planner::run(&arguments.hosts, rounds),
            Stage::Growth => in_process::growth::run(&arguments.hosts, rounds.min(3)),
            Stage::Checkpoint => in_process::checkpoint::run(&arguments.hosts, rounds.min(3)),
            Stage::Reducer => block_on(with_servers::reducer::run(on_servers)),
            Stage::Applier => block_on(with_servers::applier::run(on_servers)),
            Stage::Eventlog => block_on(with_servers::eventlog::run(on_servers)),
            Stage::IngestSingle => block_on(ingest::run(single, on_servers)),
            Stage::IngestArray => block_on(ingest::run(ingest::ARRAY, on_servers)),
            Stage::EndToEnd => block_on(with_servers::end_to_end::run(
                on_servers,
                &report.measurements,
            )),
            Stage::Flood => block_on(with_servers::flood::run(on_servers)),
            Stage::Dispatch => block_on(with_servers::dispatch::run(on_servers)),
            Stage::Open => block_on(with_servers::open_rollout::run(&arguments.hosts, rounds)),
        };
        let measurements = measurements.with_context(|| format!("measuring {stage:?}"))?;
        for measurement in &measurements {
            println!("{}", measurement.line());
        }
        report.measurements.extend(measurements);
    }
    if let Some(path) = &arguments.plot {
        plot::draw(&report, path)?;
    }
    write_json(arguments, &report)
}

/// Measures the stages in turn with another build.
fn compare(arguments: &Arguments, other: &Path) -> Result<()> {
    let stages = Stage::value_variants().iter();
    let asked = stages.filter(|stage| arguments.is_asked(**stage));
    let named = asked.filter_map(Stage::to_possible_value);
    let hosts: Vec<_> = arguments.hosts.iter().map(usize::to_string).collect();
    let comparison = Comparison {
        own: std::env::current_exe().context("finding this program")?,
        other: build_comparison::program(other)?,
        stages: named.map(|value| value.get_name().to_owned()).collect(),
        options: vec![
            format!("--hosts={}", hosts.join(",")),
            format!("--seconds={}", arguments.seconds),
            format!("--agents={}", arguments.agents),
        ],
        // In-process stages need no servers; other stages report missing ones.
        environment: ServerBinaries::find()
            .map_or_else(|_| BTreeMap::new(), |servers| servers.env()),
        rounds: arguments.rounds,
    };
    let compared = comparison.run()?;
    for measurement in &compared {
        println!("{}", measurement.line());
    }
    write_json(arguments, &compared)
}

fn write_json(arguments: &Arguments, measurements: &impl Serialize) -> Result<()> {
    if let Some(path) = &arguments.json {
        let text =
            serde_json::to_string_pretty(measurements).context("writing the measurements")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Processor and cores, so that a measurement is not read without them.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{model}, {cores} cores")
}

/// The command that repeats the measurement, wherever the program is.
fn command(arguments: impl Iterator<Item = String>) -> String {
    format!(
        "cargo xtask bench {}",
        arguments.collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(words: &[&str]) -> Arguments {
        let words = std::iter::once(&"nixfleet-bench").chain(words);
        Arguments::try_parse_from(words).unwrap()
    }

    #[test]
    fn help_names_every_stage_and_option() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for stage in Stage::value_variants() {
            let name = stage.to_possible_value().unwrap().get_name().to_owned();
            assert!(help.contains(&format!("- {name}:")), "{name}: {help}");
            assert_eq!(parse(&["--stage", &name]).stage, [*stage]);
        }
        for option in [
            "--plot <DIR>",
            "--against <PATH>",
            "--json",
            "--hosts",
            "--rounds",
            "--seconds",
        ] {
            assert!(help.contains(option), "{option}: {help}");
        }
        assert!(!help.contains("serve-empty-replies"), "{help}");
    }

    #[test]
    fn end_to_end_is_measured_after_its_stages() {
        let all = parse(&["--rounds", "3"]).measured();
        assert_eq!(all.len(), Stage::value_variants().len());
        assert!(all.iter().all(|(_, rounds)| *rounds == 3), "{all:?}");

        let alone = parse(&["--stage", "end-to-end", "--rounds", "3"]).measured();
        let mut expected: Vec<_> = EVENT_PATH.map(|stage| (stage, 1)).into();
        expected.push((Stage::EndToEnd, 3));
        assert_eq!(alone, expected);

        let some = parse(&["--stage", "applier,fold", "--rounds", "2"]).measured();
        assert_eq!(some, [(Stage::Fold, 2), (Stage::Applier, 2)]);
    }
}
