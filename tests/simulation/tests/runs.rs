//! Runs as part of every test run: some seeds pass, and a seed means one run.

use nixfleet_simulation::campaign::Campaign;
use nixfleet_simulation::engine::trace::Output;
use nixfleet_simulation::run::{command, run};
use nixfleet_simulation::scenario::{Caps, Reduction, Scenario};
use nixfleet_simulation::seed_threads::SeedRange;

/// Enough for most kinds of faults, few enough for a build without optimisation.
const SEEDS: u64 = if cfg!(debug_assertions) { 16 } else { 60 };

#[test]
fn seeds_keep_every_invariant_and_finish() {
    let campaign = Campaign {
        range: SeedRange {
            first: 1,
            seeds: SEEDS,
            jobs: 2,
            failures_max: 3,
        },
        reduction: Reduction::default(),
    };
    let summary = campaign.run(|_| ());
    let failures = summary.failures.iter().map(|failure| {
        let violation = &failure.violation;
        format!(
            "{}: {} ({})",
            violation.invariant,
            violation.message,
            command(failure.seed, &campaign.reduction)
        )
    });
    assert_eq!(failures.collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(summary.seeds, SEEDS);
    // Runs in which nothing happens would pass as well.
    assert!(
        summary.acknowledged > 50 * SEEDS,
        "{}",
        summary.acknowledged
    );
}

#[test]
fn two_runs_of_a_seed_have_the_same_trace() {
    for seed in [3, 8, 21] {
        let first = run(seed, &Reduction::default(), Output::Kept);
        let second = run(seed, &Reduction::default(), Output::Kept);
        for (line, (one, other)) in first.lines.iter().zip(&second.lines).enumerate() {
            assert_eq!(one, other, "line {line} of seed {seed}");
        }
        assert_eq!(first, second, "seed {seed}");
        assert!(
            first.trace_lines > 100,
            "seed {seed}: {}",
            first.trace_lines
        );
    }
}

#[test]
fn a_trace_does_not_depend_on_where_it_goes_and_differs_between_seeds() {
    let hash = |seed, output| run(seed, &Reduction::default(), output).trace_hash;
    assert_eq!(hash(5, Output::Nowhere), hash(5, Output::Kept));
    assert_ne!(hash(5, Output::Nowhere), hash(6, Output::Nowhere));
}

#[test]
fn a_cut_leaves_the_rest_of_a_scenario_alone() {
    let whole = Scenario::of(11, &Reduction::default());
    let cut = Reduction {
        caps: Caps {
            hosts: 2,
            ..Caps::default()
        },
        faults: Some(vec![1]),
        quiet: true,
    };
    let smaller = Scenario::of(11, &cut);
    assert_eq!(smaller.faults, whole.faults[1..2]);
    assert_eq!(smaller.shape.hosts, whole.shape.hosts[..2]);
    assert_eq!(smaller.shape.channels, whole.shape.channels);
    assert_eq!(
        command(11, &cut),
        "cargo xtask sim --seed 11 --hosts 2 --faults 1 --quiet --trace"
    );
}
