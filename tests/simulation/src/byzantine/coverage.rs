//! What a run reached: false answers by kind, and how far agents walked meanwhile.

use std::collections::BTreeMap;

use nixfleet_proto::HostState;

macro_rules! falsehoods {
    ($($name:ident,)+) => {
        /// A kind of false answer. The control plane has no key, so none of them contains a new signature that
        /// verifies.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names say what the control plane does")]
        pub enum Falsehood {
            $($name,)+
        }

        impl Falsehood {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

falsehoods! {
    // Snapshots in replies to heartbeats.
    FalseState,
    FalseClosureBefore,
    FalseRunningClosure,
    FalseTarget,
    FalseSequence,
    FalseTimes,
    FalseHost,
    UnknownRollout,
    RolloutNotFollowed,
    SnapshotsOmitted,
    SnapshotsRepeated,
    SnapshotFlood,
    // Dispatches.
    OldDispatch,
    DispatchOfOtherHost,
    TargetOfOtherHost,
    DispatchOfOtherChannel,
    DispatchOfMadeUpClosure,
    DispatchOfMadeUpRollout,
    DispatchAtFalseTime,
    DispatchRepeated,
    // Artifacts.
    OldSigning,
    ManifestOfOtherRollout,
    OtherFleet,
    SignatureOfOther,
    ClosureChanged,
    TimeChanged,
    BytesDamaged,
    BytesRewritten,
    ForeignKey,
    ArtifactWithheld,
    // Results of events.
    EventRefused,
    BatchRefused,
    EventUnavailable,
    // Of every answer.
    AnswerLost,
    AnswerSlow,
    AnswerUnreadable,
}

/// Counts of one run, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How often each kind of false answer was given.
    pub falsehoods: BTreeMap<Falsehood, u64>,
    /// Answers of the hostile control plane, truthful ones included.
    pub answers: u64,
    /// The furthest state of each walk, by state: a walk is a host in a rollout.
    pub walks: BTreeMap<HostState, u64>,
    /// Walks that began while an earlier one was known to the host, by the number of earlier ones.
    pub walks_in_a_row: BTreeMap<usize, u64>,
    /// Switches that agents commanded.
    pub switches: u64,
    /// Rollbacks that agents commanded.
    pub rollbacks: u64,
    /// Manifests and dispatches that agents refused.
    pub refusals: u64,
    /// Agents that crashed, machines that lost power, disks that were lost.
    pub crashes: u64,
    /// Machines that lost power.
    pub power_losses: u64,
    /// Disks that were lost.
    pub lost_disks: u64,
    /// Virtual seconds from the honest control plane's start to the fleet's convergence, at most.
    pub recovery_seconds: u64,
}

impl Coverage {
    /// Counts a false answer.
    pub fn count(&mut self, falsehood: Falsehood) {
        *self.falsehoods.entry(falsehood).or_default() += 1;
    }

    /// False answers of all kinds.
    pub fn falsehoods_told(&self) -> u64 {
        self.falsehoods.values().sum()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.falsehoods, &other.falsehoods);
        add(&mut self.walks, &other.walks);
        add(&mut self.walks_in_a_row, &other.walks_in_a_row);
        self.answers += other.answers;
        self.switches += other.switches;
        self.rollbacks += other.rollbacks;
        self.refusals += other.refusals;
        self.crashes += other.crashes;
        self.power_losses += other.power_losses;
        self.lost_disks += other.lost_disks;
        self.recovery_seconds = self.recovery_seconds.max(other.recovery_seconds);
    }
}

fn add<K: Ord + Copy>(sum: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (key, count) in counts {
        *sum.entry(*key).or_default() += count;
    }
}
