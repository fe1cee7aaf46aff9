//! What CI signed for the fleet: the only releases that an agent may act on, and what any control plane
//! can replay.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::{ChannelName, ChannelRef, ClosureHash, Hostname, RolloutId, Timestamp};

use super::answer::Artifacts;
use crate::engine::{Rng, Time};
use crate::scenario::{Caps, Shape, WaveShape};
use crate::signed_release::{Release, ReleaseSpec};
use crate::simulation::closure_behavior::{BAD, FAULT_FREE};

/// When agents start; releases were signed before.
pub const START: Time = Time::ZERO.plus_seconds(3_600);
/// How long the control plane is hostile.
pub const ATTACK: Duration = Duration::from_secs(900);
/// Most hosts.
const HOSTS_MAX: usize = 5;

/// One signed release.
#[derive(Debug)]
pub struct GenuineRelease {
    /// When it was signed.
    pub at: Time,
    /// Rollout and target of each host, as CI decided them.
    pub targets: BTreeMap<Hostname, GenuineTarget>,
    /// The signed artifacts.
    pub release: Release,
}

/// Where a release takes a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenuineTarget {
    /// The rollout of its channel.
    pub rollout_id: RolloutId,
    /// The closure.
    pub closure: ClosureHash,
}

/// The fleet and everything that CI signed for it, in order.
#[derive(Debug)]
pub struct GenuineReleases {
    /// The fleet of the first release.
    pub shape: Shape,
    /// Releases by time.
    pub releases: Vec<GenuineRelease>,
    /// The release of the honest control plane, before it is signed.
    last: Draft,
}

/// What CI decides for one release.
#[derive(Debug, Clone)]
struct Draft {
    shape: Shape,
    closures: Vec<ClosureHash>,
    commit: String,
}

/// The moment of an answer: what exists, and what time it is.
#[derive(Debug, Clone, Copy)]
pub struct AnswerContext<'a> {
    /// Everything that was signed.
    pub genuine: &'a GenuineReleases,
    /// Virtual time.
    pub now: Time,
}

impl<'a> AnswerContext<'a> {
    /// The time on a correct clock.
    pub fn wall(&self) -> Timestamp {
        self.now.wall(0)
    }

    /// Releases that were signed until now, the newest last.
    pub fn releases(&self) -> &'a [GenuineRelease] {
        let all = &self.genuine.releases;
        let count = all.partition_point(|release| release.at <= self.now);
        &all[..count]
    }

    /// What these releases say of a host, the newest last.
    pub fn targets_of(&self, host: &Hostname) -> Vec<&'a GenuineTarget> {
        let releases = self.releases().iter();
        releases
            .filter_map(|release| release.targets.get(host))
            .collect()
    }
}

impl GenuineRelease {
    /// The artifacts of a rollout, if the release has it.
    pub fn artifacts(&self, rollout_id: &RolloutId) -> Option<Artifacts> {
        let mut rollouts = self.release.rollouts.iter();
        let (channel, _) = rollouts.find(|(_, id)| *id == rollout_id)?;
        Some(Artifacts {
            manifest: self.release.bundle.rollouts.get(channel)?.clone(),
            fleet: self.release.bundle.fleet.clone(),
        })
    }
}

impl GenuineReleases {
    /// The releases of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "genuine releases");
        let shape = small_fleet(seed);
        let last = fault_free_draft(&shape);
        let mut drafts: Vec<Draft> = Vec::new();
        let mut times = times(&mut rng);
        // Half of the fleets end on a release that the hostile control plane has known already.
        let known = rng.chance(500).then(|| times.pop()).flatten();
        let mut releases = Vec::new();
        for at in times {
            let renewed = drafts.last().filter(|_| rng.chance(200)).cloned();
            let draft = renewed.unwrap_or_else(|| new_draft(&mut rng, &shape, &drafts));
            releases.push(signed(&draft, at));
            drafts.push(draft);
        }
        releases.extend(known.map(|at| signed(&last, at)));
        Self {
            shape,
            releases,
            last,
        }
    }

    /// The release of the honest control plane, with every host, on which nothing goes wrong. CI signs it, or
    /// signs it once more.
    pub fn sign_last(&mut self, at: Time) -> &GenuineRelease {
        let index = self.releases.len();
        self.releases.push(signed(&self.last, at));
        &self.releases[index]
    }

    /// What CI signed for a rollout at a time.
    pub fn find(&self, rollout_id: &RolloutId, signed_at: Timestamp) -> Option<&GenuineRelease> {
        let same = |release: &&GenuineRelease| {
            release.release.signed_at == signed_at
                && release.release.signed.contains_key(rollout_id)
        };
        self.releases.iter().find(same)
    }
}

/// A few hosts that nothing holds for ever.
fn small_fleet(seed: u64) -> Shape {
    let caps = Caps {
        hosts: HOSTS_MAX,
        ..Caps::default()
    };
    let mut shape = Shape::of(seed, caps);
    // Hosts come and go between releases.
    shape.host_edges.clear();
    for channel in &mut shape.channels {
        for wave in &mut channel.waves {
            wave.soak_seconds = wave.soak_seconds.min(45);
        }
        let soak_seconds = 10;
        channel.waves.push(WaveShape {
            tag: None,
            soak_seconds,
        });
    }
    shape
}

/// Some before the start, the oldest too old to act on, and some under attack.
fn times(rng: &mut Rng) -> Vec<Time> {
    let attack = ATTACK.as_secs();
    let begin = START.micros() / 1_000_000;
    let before = rng.range(1, 3);
    let during = rng.range(1, 3);
    let mut seconds: Vec<u64> = (0..before).map(|_| begin - rng.range(1, 1_200)).collect();
    seconds.extend((0..during).map(|_| begin + rng.below(attack * 4 / 5)));
    seconds.sort_unstable();
    seconds.dedup();
    seconds.into_iter().map(Time::seconds).collect()
}

fn fault_free_draft(shape: &Shape) -> Draft {
    let hosts = shape.hosts.iter();
    let closures = hosts.map(|host| ClosureHash::from(format!("last-{FAULT_FREE}-{}", host.name)));
    Draft {
        shape: shape.clone(),
        closures: closures.collect(),
        commit: "ff".to_owned(),
    }
}

fn new_draft(rng: &mut Rng, whole: &Shape, before: &[Draft]) -> Draft {
    let number = before.len();
    let mut shape = whole.clone();
    let channels = shape.channels.len();
    for host in &mut shape.hosts {
        if rng.chance(80) {
            host.channel = rng.index(channels);
        }
    }
    if shape.hosts.len() > 1 && rng.chance(150) {
        let leaves = rng.index(shape.hosts.len());
        shape.hosts.remove(leaves);
    }
    let shared = closure_name(rng, number, "all");
    let hosts = shape.hosts.iter();
    let closures = hosts.map(|host| {
        let earlier = before
            .iter()
            .filter_map(|draft| draft.closure_of(&host.name));
        let earlier: Vec<_> = earlier.collect();
        match rng.below(100) {
            0..=59 => closure_name(rng, number, &host.name),
            60..=74 => shared.clone(),
            _ if earlier.is_empty() => closure_name(rng, number, &host.name),
            75..=84 => earlier[earlier.len() - 1].clone(),
            _ => (*rng.pick(&earlier)).clone(),
        }
    });
    Draft {
        closures: closures.collect(),
        shape,
        commit: format!("{number:02x}"),
    }
}

impl Draft {
    fn closure_of(&self, host: &str) -> Option<&ClosureHash> {
        let index = self
            .shape
            .hosts
            .iter()
            .position(|known| known.name == host)?;
        self.closures.get(index)
    }
}

fn closure_name(rng: &mut Rng, release: usize, of: &str) -> ClosureHash {
    let quality = match rng.below(100) {
        0..=24 => BAD,
        25..=54 => FAULT_FREE,
        _ => "plain",
    };
    ClosureHash::from(format!("r{release}-{quality}-{of}"))
}

fn signed(draft: &Draft, at: Time) -> GenuineRelease {
    let release = Release::build(ReleaseSpec {
        shape: &draft.shape,
        commit: &draft.commit,
        closures: &draft.closures,
        signed_at: at.wall(0),
        lenient: true,
    });
    let hosts = draft.shape.hosts.iter().zip(&draft.closures);
    let targets = hosts.map(|(host, closure)| {
        let channel = ChannelName::from(draft.shape.channels[host.channel].name);
        let target = GenuineTarget {
            rollout_id: RolloutId::new(&channel, &ChannelRef::from(draft.commit.as_str())),
            closure: closure.clone(),
        };
        (host.hostname(), target)
    });
    GenuineRelease {
        at,
        targets: targets.collect(),
        release,
    }
}
