//! A hostile control plane as part of every test run: some seeds pass, and reach what they are for.

use nixfleet_proto::HostState;
use nixfleet_simulation::byzantine::byzantine_campaign::run_many;
use nixfleet_simulation::byzantine::byzantine_run::run;
use nixfleet_simulation::byzantine::coverage::Falsehood;
use nixfleet_simulation::engine::trace::Output;
use nixfleet_simulation::seed_threads::SeedRange;

/// Enough for every kind of false answer, few enough for a build without optimisation.
const SEEDS: u64 = if cfg!(debug_assertions) { 120 } else { 600 };

#[test]
fn a_hostile_control_plane_stalls_and_lies_and_nothing_else() {
    let range = SeedRange {
        first: 1,
        seeds: SEEDS,
        jobs: 2,
        failures_max: 3,
    };
    let summary = run_many(&range, |_| ());
    assert!(summary.failures.is_empty(), "{}", summary.text());
    // A control plane that tells the truth only, or agents that do nothing, would pass as well.
    let coverage = &summary.coverage;
    let untold = Falsehood::ALL
        .iter()
        .filter(|falsehood| !coverage.falsehoods.contains_key(falsehood));
    assert_eq!(untold.collect::<Vec<_>>(), Vec::<&Falsehood>::new());
    for state in [
        HostState::Soaking,
        HostState::Converged,
        HostState::Failed,
        HostState::Reverted,
    ] {
        let walks = coverage.walks.get(&state).copied().unwrap_or(0);
        assert!(walks >= SEEDS / 30, "{}", summary.text());
    }
    assert!(
        coverage.lost_disks > 0 && coverage.power_losses > 0,
        "{}",
        summary.text()
    );
}

#[test]
fn two_runs_of_a_seed_have_the_same_trace() {
    for seed in [2, 9, 30] {
        let first = run(seed, Output::Kept);
        let second = run(seed, Output::Kept);
        for (line, (one, other)) in first.lines.iter().zip(&second.lines).enumerate() {
            assert_eq!(one, other, "line {line} of seed {seed}");
        }
        assert_eq!(first, second, "seed {seed}");
        assert!(first.lines.len() > 100, "seed {seed}");
    }
}
