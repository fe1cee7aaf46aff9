//! `nixfleet-sim`: runs seeds of the simulation.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nixfleet_simulation::byzantine::byzantine_campaign::run_many;
use nixfleet_simulation::byzantine::byzantine_run;
use nixfleet_simulation::campaign::{Campaign, Failure, Summary};
use nixfleet_simulation::engine::trace::Output;
use nixfleet_simulation::run::{command, run};
use nixfleet_simulation::scenario::{Caps, Reduction, Scenario};
use nixfleet_simulation::seed_threads::SeedRange;
use nixfleet_simulation::shrink::shrink;
use serde_json::json;

/// Runs the real cores of every service and of the agents in virtual time, on a model log and a model
/// database, with faults from a seed. Exit code 1: an invariant was broken.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim")]
struct Arguments {
    /// How many seeds to run: 200 by default; with --mutants at most so many for each fault, 1,000
    /// by default.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run this one seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; as many as there are cores by default.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Seconds to spend on making the first failing seed smaller; 0: not at all.
    #[arg(long, default_value_t = 30)]
    shrink_seconds: u64,
    /// Puts one fault after the other into the code and shows that some seed finds each.
    #[arg(long, conflicts_with_all = ["seed", "trace"])]
    mutants: bool,
    /// Only this fault.
    #[arg(long, requires = "mutants")]
    mutant: Option<String>,
    /// Instead of the whole control plane: real agents against a hostile one, which lies about
    /// everything and has no key, and then against an honest one.
    #[arg(long, conflicts_with_all = ["mutants", "hosts", "instances", "releases", "faults", "quiet"])]
    byzantine: bool,
    /// One JSON document on standard output, for machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cut: CutArguments,
}

/// What a shrunk run leaves out.
#[derive(Debug, clap::Args)]
struct CutArguments {
    /// Most hosts.
    #[arg(long)]
    hosts: Option<usize>,
    /// Most instances of each service.
    #[arg(long)]
    instances: Option<usize>,
    /// Most releases.
    #[arg(long)]
    releases: Option<usize>,
    /// Only these faults of the seed's schedule, by number; `none` for no fault at all.
    #[arg(long, value_name = "N,N,…")]
    faults: Option<String>,
    /// No losses, delays and crashes beside the schedule.
    #[arg(long)]
    quiet: bool,
}

impl CutArguments {
    fn cut(&self) -> Result<Reduction, String> {
        let caps = Caps::default();
        let faults = match self.faults.as_deref() {
            None => None,
            Some("none") => Some(Vec::new()),
            Some(list) => Some(
                list.split(',')
                    .map(|number| {
                        number
                            .parse()
                            .map_err(|_| format!("--faults {list}: {number:?} is no number"))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Reduction {
            caps: Caps {
                hosts: self.hosts.unwrap_or(caps.hosts),
                instances: self.instances.unwrap_or(caps.instances),
                releases: self.releases.unwrap_or(caps.releases),
            },
            faults,
            quiet: self.quiet,
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cut = match arguments.cut.cut() {
        Ok(cut) => cut,
        Err(fault) => {
            eprintln!("nixfleet-sim: {fault}");
            return ExitCode::from(2);
        }
    };
    // A panic of a core is reported as what it is, once, with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if arguments.mutants {
        return mutants(&arguments);
    }
    if arguments.byzantine {
        return byzantine(&arguments);
    }
    match arguments.seed {
        Some(seed) => one(&arguments, seed, &cut),
        None => many(&arguments, cut),
    }
}

fn one(arguments: &Arguments, seed: u64, cut: &Reduction) -> ExitCode {
    let output = if arguments.trace {
        let scenario = Scenario::of(seed, cut);
        println!("{:#?}", scenario.shape);
        for (index, fault) in scenario.faults.iter().enumerate() {
            println!("fault {index}: {fault}");
        }
        println!("{:?}", scenario.fault_rates);
        Output::Printed
    } else {
        Output::Nowhere
    };
    let outcome = run(seed, cut, output);
    if arguments.json {
        println!(
            "{}",
            json!({
                "seed": seed,
                "passed": outcome.violation.is_none(),
                "violation": outcome.violation.as_ref().map(|v| json!({
                    "invariant": v.invariant, "message": v.message,
                })),
                "virtualSeconds": outcome.ended_at.since_start().as_secs_f64(),
                "events": outcome.events,
                "entries": outcome.entries,
                "acknowledged": outcome.acknowledged,
                "traceHash": format!("{:016x}", outcome.trace_hash),
                "traceLines": outcome.trace_lines,
            })
        );
    } else {
        println!(
            "seed {seed}: {} entries, {} acknowledged events in {:.0} virtual seconds; trace {:016x}",
            outcome.entries,
            outcome.acknowledged,
            outcome.ended_at.since_start().as_secs_f64(),
            outcome.trace_hash,
        );
        if let Some(violation) = &outcome.violation {
            println!("BROKEN {}: {}", violation.invariant, violation.message);
        }
    }
    exit_code(outcome.violation.is_none())
}

/// Seeds of the hostile control plane.
fn byzantine(arguments: &Arguments) -> ExitCode {
    if let (Some(seed), true) = (arguments.seed, arguments.trace) {
        let outcome = byzantine_run::run(seed, Output::Printed);
        if let Some(violation) = &outcome.violation {
            println!("BROKEN {}: {}", violation.invariant, violation.message);
        }
        return exit_code(outcome.violation.is_none());
    }
    let range = SeedRange {
        first: arguments.seed.unwrap_or(arguments.first),
        seeds: arguments.seed.map_or(arguments.seeds.unwrap_or(200), |_| 1),
        jobs: jobs(arguments),
        failures_max: arguments.failures.max(1),
    };
    let summary = run_many(&range, |so_far| {
        let failed = so_far.failures.len();
        let line = format!("{} of {} seeds, {failed} failed", so_far.seeds, range.seeds);
        drop(writeln!(std::io::stderr(), "{line}"));
    });
    if arguments.json {
        println!("{}", summary.json());
    } else {
        print!("{}", summary.text());
    }
    exit_code(summary.failures.is_empty())
}

fn many(arguments: &Arguments, cut: Reduction) -> ExitCode {
    let range = SeedRange {
        first: arguments.first,
        seeds: arguments.seeds.unwrap_or(200),
        jobs: jobs(arguments),
        failures_max: arguments.failures.max(1),
    };
    let campaign = Campaign {
        range,
        reduction: cut.clone(),
    };
    let summary = campaign.run(|so_far| tell(so_far, range.seeds));
    if arguments.json {
        println!("{}", summary_json(&campaign, &summary));
    } else {
        print_summary(&summary);
        print_failures(arguments, &summary, &cut);
    }
    exit_code(summary.failures.is_empty())
}

fn tell(so_far: &Summary, seeds: u64) {
    let failed = so_far.failures.len();
    let last = so_far.failures.last();
    let last = last.map_or_else(String::new, |failure| {
        format!(", the last {}", failure.seed)
    });
    let line = format!(
        "{} of {seeds} seeds, {failed} failed{last}, {:.1} ms each, {:.0} s",
        so_far.seeds,
        millis_each(so_far),
        so_far.took.as_secs_f64()
    );
    // A closed standard error is no reason to stop.
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn millis_each(summary: &Summary) -> f64 {
    summary.worked.as_secs_f64() * 1_000.0 / summary.seeds.max(1) as f64
}

fn print_summary(summary: &Summary) {
    println!(
        "{} seeds, {} failed; {:.1} s, {:.1} ms of a thread each; {} events, {} entries, {} \
         acknowledged host events in {:.0} virtual hours",
        summary.seeds,
        summary.failures.len(),
        summary.took.as_secs_f64(),
        millis_each(summary),
        summary.events,
        summary.entries,
        summary.acknowledged,
        summary.virtual_time.as_secs_f64() / 3_600.0,
    );
    let counts = &summary.counts;
    println!(
        "logs trimmed {} times in {} runs; {} messages and {} requests refused for want of room in {} \
         runs, {} partitions held; {} checkpoints, rows restored {} times",
        counts.trims,
        summary.trimmed_runs,
        counts.refused,
        counts.held_back,
        summary.full_runs,
        counts.held_partitions,
        counts.checkpoints,
        counts.restored,
    );
}

fn print_failures(arguments: &Arguments, summary: &Summary, cut: &Reduction) {
    for Failure { seed, violation } in &summary.failures {
        println!(
            "seed {seed} broke {}: {}",
            violation.invariant, violation.message
        );
        println!("  repeat: {}", command(*seed, cut));
    }
    let timeout = Duration::from_secs(arguments.shrink_seconds);
    if let (Some(first), false) = (summary.failures.first(), timeout.is_zero()) {
        let invariant = first.violation.invariant;
        let smaller = shrink(first.seed, cut.clone(), invariant, timeout);
        if smaller != *cut {
            println!("seed {} made smaller:", first.seed);
            println!("  repeat: {}", command(first.seed, &smaller));
        }
    }
}

fn summary_json(campaign: &Campaign, summary: &Summary) -> serde_json::Value {
    let failures = summary.failures.iter().map(|failure| {
        json!({
            "seed": failure.seed,
            "invariant": failure.violation.invariant,
            "message": failure.violation.message,
            "repeat": command(failure.seed, &campaign.reduction),
        })
    });
    json!({
        "first": campaign.range.first,
        "seeds": summary.seeds,
        "jobs": campaign.range.jobs,
        "failures": failures.collect::<Vec<_>>(),
        "seconds": summary.took.as_secs_f64(),
        "threadMillisEach": millis_each(summary),
        "events": summary.events,
        "entries": summary.entries,
        "acknowledged": summary.acknowledged,
        "virtualHours": summary.virtual_time.as_secs_f64() / 3_600.0,
        "checkpoints": summary.counts.checkpoints,
        "restored": summary.counts.restored,
        "trims": summary.counts.trims,
        "trimmedRuns": summary.trimmed_runs,
        "refused": summary.counts.refused,
        "heldBack": summary.counts.held_back,
        "fullRuns": summary.full_runs,
        "heldPartitions": summary.counts.held_partitions,
    })
}

#[cfg(not(feature = "mutants"))]
fn mutants(_: &Arguments) -> ExitCode {
    eprintln!("nixfleet-sim: built without feature mutants: use `cargo xtask sim --mutants`");
    ExitCode::from(2)
}

/// Prints which fault was found by which invariant and after how many seeds.
#[cfg(feature = "mutants")]
fn mutants(arguments: &Arguments) -> ExitCode {
    use nixfleet_simulation::mutants::{MutantResult, run_mutants};

    if !arguments.json {
        println!(
            "{:27} {:55} {:12} {:>5} {:>5}",
            "fault", "what it breaks", "found by", "seed", "tried"
        );
    }
    let line = |result: &MutantResult| {
        let (invariant, seed) = match &result.found {
            Some(failure) => (failure.violation.invariant, failure.seed.to_string()),
            None => ("SURVIVED", "-".to_owned()),
        };
        let (name, breaks) = (result.mutant, result.breaks);
        format!(
            "{name:27} {breaks:55} {invariant:12} {seed:>5} {:>5}",
            result.seeds
        )
    };
    let only = arguments.mutant.as_deref();
    let seeds = arguments.seeds.unwrap_or(1_000);
    let results = run_mutants(only, seeds, jobs(arguments), |result| {
        if !arguments.json {
            println!("{}", line(result));
        }
    });
    let survivors = results.iter().filter(|result| result.found.is_none());
    let survivors = survivors.count();
    if arguments.json {
        let rows = results.iter().map(|result| {
            let found = result.found.as_ref();
            json!({
                "mutant": result.mutant,
                "breaks": result.breaks,
                "seeds": result.seeds,
                "seed": found.map(|failure| failure.seed),
                "invariant": found.map(|failure| failure.violation.invariant),
                "message": found.map(|failure| &failure.violation.message),
            })
        });
        println!("{}", json!({ "mutants": rows.collect::<Vec<_>>() }));
    } else {
        println!("{} faults, {survivors} survived", results.len());
    }
    exit_code(survivors == 0 && !results.is_empty())
}

fn jobs(arguments: &Arguments) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    arguments.jobs.map_or(cores, NonZeroUsize::get)
}

fn exit_code(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
