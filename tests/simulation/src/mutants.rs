//! Mutation tests of the simulation: each mutant of the code has to violate an invariant.
//!
//! [`run_mutants`] needs feature `mutants`. A mutant is active in the whole process, so mutants run one after the
//! other.

use crate::campaign::Failure;

/// Beginning of the mutants of what an agent believes, which a hostile control plane has to find.
#[cfg(feature = "mutants")]
const AGENT_MUTANT_PREFIX: &str = "agent-";

/// The result of one mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutantResult {
    /// Its name.
    pub mutant: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// Seeds that were run.
    pub seeds: u64,
    /// The seed that found it; absent when it survived.
    pub found: Option<Failure>,
}

/// What a mutant breaks.
pub fn breaks(mutant: &str) -> &'static str {
    match mutant {
        "bus-ack-unknown" => "a publish without a known result counts as stored",
        "bus-any-last-is-mine" => "any last frame counts as the own one",
        "lease-never-expires" => "a lease that was not renewed in time is still held",
        "lease-takes-held" => "a lease is acquired while another process holds it",
        "reader-trusts-log" => "a reader goes on in a log that lost its end",
        "trim-by-newest-checkpoint" => "logs are trimmed behind the newest checkpoint",
        "trim-without-archive" => "logs are trimmed before they are archived",
        "checkpoints-keep-one" => "the checkpoint before the newest is deleted",
        "checkpoints-delete-newer" => "checkpoints that are not announced yet are deleted",
        "owner-folds-into-full-log" => "an owner folds until its output log is full",
        "ready-without-append" => "an owner is ready after a failed append",
        "checkpoint-hash-ignored" => "checkpoints are used without a check of their hashes",
        "checkpoint-at-frame-before" => "a checkpoint is announced with the frame before its own",
        "applier-ignores-checkpoints" => "rows begin in the middle of a trimmed log",
        "bus-any-clock" => "entries are appended with any clock",
        "fold-any-clock" => "entries are accepted whatever their time is",
        "fold-order-clock" => "the fold depends on more than the log",
        "fold-believes-hosts" => "a host whose clock is ahead ends its soak early",
        "fold-accept-stale" => "an event that was seen before is accepted again",
        "fold-ignore-epoch" => "actions of older leaders are accepted",
        "halt-ignored" => "a halted rollout goes on",
        "unsigned-commands" => "commands without a console's signature are obeyed",
        "plan-forget-queued" => "budgets do not count queued dispatches",
        "plan-forget-pending" => "budgets do not count dispatches without an outcome",
        "reducer-drop-fence" => "an owner publishes after the frames of a newer one",
        "takeover-skip-barrier" => "an owner begins without a barrier",
        "takeover-from-cursor" => "an owner ignores frames after the cursor of the rows",
        "owner-drop-at-split" => "the outcome at which a frame is full is lost",
        "tail-loss-unseen" => "an owner begins on a log that lost its end",
        "recovery-twice" => "two heartbeats recover one transition twice",
        "recovery-no-look" => "transitions that are in the log are recovered",
        "applier-no-compare" => "rows are written without a check of the cursor",
        "applier-cursor-without-rows" => "the cursor moves without its rows",
        "planner-skip-barrier" => "a leader plans before its barriers are folded",
        "agent-closure-of-snapshot" => "an agent takes the closure before a walk from a snapshot",
        "agent-ignores-age" => "an agent begins walks with manifests of any age",
        "agent-ignores-newer" => "an agent follows older manifests after newer ones",
        "agent-ignores-host-set" => "an agent follows manifests that do not list its host",
        "agent-forgets-memory" => "the newest verified manifests are not saved",
        "agent-takes-any-floor" => "an agent continues above any sequence",
        "agent-reuses-sequences" => "sequences of undurable events are not reserved",
        _ => "not described",
    }
}

/// Runs seeds with each mutant until one violates an invariant, at most so many.
#[cfg(feature = "mutants")]
pub fn run_mutants(
    only: Option<&str>,
    seeds: u64,
    jobs: usize,
    tell: impl Fn(&MutantResult),
) -> Vec<MutantResult> {
    use nixfleet_proto::mutation_testing;

    use crate::byzantine::byzantine_campaign::run_many;
    use crate::campaign::Campaign;
    use crate::scenario::Reduction;
    use crate::seed_threads::SeedRange;

    let mut results = Vec::new();
    let range = SeedRange {
        first: 1,
        seeds,
        jobs,
        failures_max: 1,
    };
    let chosen = mutation_testing::NAMES.into_iter();
    for name in chosen.filter(|name| only.is_none_or(|only| only == *name)) {
        mutation_testing::activate(Some(name));
        let (tried, failures) = if name.starts_with(AGENT_MUTANT_PREFIX) {
            let summary = run_many(&range, |_| ());
            (summary.seeds, summary.failures)
        } else {
            let campaign = Campaign {
                range,
                reduction: Reduction::default(),
            };
            let summary = campaign.run(|_| ());
            (summary.seeds, summary.failures)
        };
        mutation_testing::activate(None);
        let result = MutantResult {
            mutant: name,
            breaks: breaks(name),
            seeds: tried,
            found: failures.into_iter().next(),
        };
        tell(&result);
        results.push(result);
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_described() {
        for name in nixfleet_proto::mutation_testing::NAMES {
            assert_ne!(breaks(name), "not described", "{name}");
        }
    }
}
