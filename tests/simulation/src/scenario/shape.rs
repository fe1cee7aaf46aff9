//! Sizes of a run and its fleet, from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::Hostname;

use super::log_limits::LogLimits;
use crate::addressing::Service;
use crate::engine::Rng;

/// Names of channels; which partition each falls into follows from its hash.
const CHANNELS: [&str; 6] = ["stable", "edge", "canary", "lab", "infra", "db"];
/// Tags that selectors choose by.
pub const TAGS: [&str; 3] = ["front", "middle", "back"];

/// Sizes and the fleet of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Number of partitions.
    pub partitions: u16,
    /// Instances of each service, in the order of [`Service::ALL`].
    pub instances: [usize; 5],
    /// Bytes that the logs may hold.
    pub log_limits: LogLimits,
    /// Hosts in the order of their names.
    pub hosts: Vec<HostShape>,
    /// Channels, each with at least one host.
    pub channels: Vec<ChannelShape>,
    /// Edges between channels.
    pub channel_edges: Vec<EdgeShape>,
    /// Edges between hosts of one channel.
    pub host_edges: Vec<EdgeShape>,
    /// Disruption budgets.
    pub budgets: Vec<BudgetShape>,
    /// When each release is published; the first is early.
    pub releases: Vec<Duration>,
    /// How long faults go on.
    pub safety: Duration,
}

/// An edge between two channels or two hosts, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeShape {
    /// Index of the one that waits.
    pub gated: usize,
    /// Index of the one that goes first.
    pub gates: usize,
}

/// One wave of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaveShape {
    /// Tag of its hosts; absent: every host.
    pub tag: Option<&'static str>,
    /// Its soak.
    pub soak_seconds: u64,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostShape {
    /// Its name.
    pub name: String,
    /// Index of its channel.
    pub channel: usize,
    /// Its one tag.
    pub tag: &'static str,
    /// Probes under enforce.
    pub enforced: usize,
    /// One more probe that is only observed.
    pub observed: bool,
    /// The first enforced probe gives evidence: controls of a framework.
    pub evidence: bool,
}

impl HostShape {
    /// Its name as the cores have it.
    pub fn hostname(&self) -> Hostname {
        self.name.parse().expect("a shape has legal names")
    }
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelShape {
    /// Its name.
    pub name: &'static str,
    /// True: a failing host goes back to its previous closure.
    pub rolls_back: bool,
    /// Waves; without any, all hosts are dispatched at once.
    pub waves: Vec<WaveShape>,
    /// Minutes.
    pub freshness: u64,
}

impl ChannelShape {
    /// The wave a host is in; absent when it is in none.
    pub fn wave_of(&self, host: &HostShape) -> Option<usize> {
        let mut waves = self.waves.iter();
        waves.position(|wave| wave.tag.is_none_or(|tag| tag == host.tag))
    }
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetShape {
    /// Hosts of this tag, or all.
    pub tag: Option<&'static str>,
    /// Hosts.
    pub max: Option<u64>,
    /// Percent.
    pub percent: Option<u64>,
}

/// Upper bounds, for shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Most hosts.
    pub hosts: usize,
    /// Most instances per service.
    pub instances: usize,
    /// Most releases.
    pub releases: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            hosts: 40,
            instances: 3,
            releases: 4,
        }
    }
}

impl Shape {
    /// How many instances a service has.
    pub fn instances_of(&self, service: Service) -> usize {
        let index = Service::ALL.iter().position(|other| *other == service);
        index.map_or(0, |index| self.instances[index])
    }

    /// The shape of a seed, cut to the caps.
    pub fn of(seed: u64, caps: Caps) -> Self {
        let mut rng = Rng::new(seed, "shape");
        let partitions = rng.range(1, 4) as u16;
        let channel_count = rng.range(1, 4) as usize;
        let hosts = host_count(&mut rng, channel_count);
        let channels = channels(&mut rng, channel_count);
        let instances = std::array::from_fn(|_| {
            let count = *rng.pick(&[1, 2, 2, 2, 3]);
            count.min(caps.instances)
        });
        let mut hosts = host_shapes(&mut rng, hosts, channel_count);
        let log_limits = LogLimits::of(seed, hosts.len());
        let channel_edges = channel_edges(&mut rng, channel_count);
        let mut host_edges = host_edges(&mut rng, &hosts, &channels);
        let budgets = budgets(&mut rng);
        let safety = Duration::from_secs(rng.range(120, 360));
        let mut releases = releases(&mut rng, safety);
        // Cut at the end, so that a cap changes nothing but what it cuts.
        hosts.truncate(caps.hosts.max(1));
        host_edges.retain(|edge| edge.gated < hosts.len());
        releases.truncate(caps.releases.max(1));
        Self {
            partitions,
            instances,
            log_limits,
            hosts,
            channels,
            channel_edges,
            host_edges,
            budgets,
            releases,
            safety,
        }
    }
}

/// Mostly few, so that many seeds fit into a minute; sometimes enough for waves to overlap.
fn host_count(rng: &mut Rng, channels: usize) -> usize {
    let count = match rng.below(10) {
        0..=5 => rng.range(3, 9),
        6..=8 => rng.range(8, 18),
        _ => rng.range(18, 40),
    };
    (count as usize).max(channels)
}

fn channels(rng: &mut Rng, count: usize) -> Vec<ChannelShape> {
    let first = rng.index(CHANNELS.len());
    (0..count)
        .map(|index| ChannelShape {
            name: CHANNELS[(first + index) % CHANNELS.len()],
            rolls_back: rng.chance(600),
            waves: waves(rng),
            freshness: if rng.chance(80) {
                rng.range(5, 12)
            } else {
                1_440
            },
        })
        .collect()
}

fn waves(rng: &mut Rng) -> Vec<WaveShape> {
    let soak = |rng: &mut Rng| *rng.pick(&[0, 10, 30, 45, 60, 90]);
    let mut waves: Vec<_> = (0..rng.below(3))
        .map(|_| WaveShape {
            tag: Some(*rng.pick(&TAGS)),
            soak_seconds: soak(rng),
        })
        .collect();
    // Without a wave for everyone some hosts may be unstaged, and their rollout never ends for them.
    if waves.is_empty() || rng.chance(900) {
        waves.push(WaveShape {
            tag: None,
            soak_seconds: soak(rng),
        });
    }
    waves
}

fn host_shapes(rng: &mut Rng, count: usize, channels: usize) -> Vec<HostShape> {
    (0..count)
        .map(|index| HostShape {
            name: format!("h{index:02}"),
            channel: if index < channels {
                index
            } else {
                rng.index(channels)
            },
            tag: TAGS[rng.index(TAGS.len())],
            enforced: *rng.pick(&[0, 1, 1, 2]),
            observed: rng.chance(150),
            evidence: rng.chance(250),
        })
        .collect()
}

/// A chain or nothing: an edge goes from a channel to one with a lower index, so there is no cycle.
fn channel_edges(rng: &mut Rng, channels: usize) -> Vec<EdgeShape> {
    let mut edges = Vec::new();
    for gated in 1..channels {
        if rng.chance(400) {
            edges.push(EdgeShape {
                gated,
                gates: rng.index(gated),
            });
        }
    }
    edges
}

/// A host waits for one of the same or an earlier wave; anything else would wait for ever.
fn host_edges(rng: &mut Rng, hosts: &[HostShape], channels: &[ChannelShape]) -> Vec<EdgeShape> {
    let mut by_channel: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate() {
        by_channel.entry(host.channel).or_default().push(index);
    }
    let mut edges = Vec::new();
    for (channel, of_channel) in by_channel.iter().filter(|(_, hosts)| hosts.len() > 1) {
        if !rng.chance(250) {
            continue;
        }
        let gated = rng.range(1, of_channel.len() as u64 - 1) as usize;
        let (gated, gates) = (of_channel[gated], of_channel[rng.index(gated)]);
        let wave = |host: usize| channels[*channel].wave_of(&hosts[host]);
        let comes_first = match (wave(gates), wave(gated)) {
            (Some(gates), Some(gated)) => gates <= gated,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if comes_first {
            edges.push(EdgeShape { gated, gates });
        }
    }
    edges
}

fn budgets(rng: &mut Rng) -> Vec<BudgetShape> {
    (0..*rng.pick(&[0_u64, 0, 1, 1, 2]))
        .map(|_| {
            let max = rng.chance(700).then(|| rng.range(1, 4));
            let by_share = max.is_none() || rng.chance(300);
            BudgetShape {
                tag: rng.chance(600).then(|| *rng.pick(&TAGS)),
                max,
                percent: by_share.then(|| rng.range(10, 60)),
            }
        })
        .collect()
}

fn releases(rng: &mut Rng, safety: Duration) -> Vec<Duration> {
    let count = *rng.pick(&[1_u64, 2, 2, 3]);
    let mut times: Vec<_> = (1..count)
        .map(|_| Duration::from_millis(rng.range(30_000, safety.as_millis() as u64 * 3 / 4)))
        .collect();
    times.push(Duration::from_millis(rng.range(100, 5_000)));
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_repeatable_and_within_their_bounds() {
        for seed in 0..500 {
            let shape = Shape::of(seed, Caps::default());
            assert_eq!(shape, Shape::of(seed, Caps::default()));
            assert!((1..=4).contains(&shape.partitions));
            assert!((1..=40).contains(&shape.hosts.len()));
            assert!(
                shape
                    .hosts
                    .iter()
                    .all(|host| host.channel < shape.channels.len())
            );
            assert!(shape.releases.is_sorted());
            for EdgeShape { gated, gates } in shape.host_edges {
                assert!(gates < gated);
                assert_eq!(shape.hosts[gated].channel, shape.hosts[gates].channel);
            }
        }
    }

    #[test]
    fn caps_cut_a_shape_and_leave_the_rest_as_it_was() {
        let whole = Shape::of(3, Caps::default());
        let cut = Shape::of(
            3,
            Caps {
                hosts: 2,
                instances: 1,
                releases: 1,
            },
        );
        assert_eq!(cut.hosts, whole.hosts[..2]);
        assert_eq!(cut.channels, whole.channels);
        assert_eq!(cut.instances, [1; 5]);
        assert_eq!(cut.log_limits, whole.log_limits);
    }
}
