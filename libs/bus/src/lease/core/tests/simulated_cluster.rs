//! A simulated bucket with several instances in virtual time: requests and answers are delayed or lost,
//! watches lag and end, processes pause and die.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::Timestamp;

use super::super::*;
use crate::lease::{InstanceId, LeaseConfig};

pub(super) const MS: Duration = Duration::from_millis(1);
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A small seeded random generator, so that tests are deterministic.
#[derive(Clone, Copy)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        // Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

enum Event {
    Poll(usize),
    Arrive {
        node: usize,
        ticket: u64,
        write: Write,
        ack: bool,
    },
    Ask {
        node: usize,
        ticket: u64,
        key: RecordKey,
    },
    Answer {
        node: usize,
        ticket: u64,
        answer: Answer,
    },
    Show {
        node: usize,
        watch: u64,
        key: RecordKey,
        observed: VersionedContent,
    },
    Current {
        node: usize,
        watch: u64,
    },
    WatchEnds {
        node: usize,
        watch: u64,
    },
    Expire {
        key: RecordKey,
        revision: u64,
    },
    Want {
        node: usize,
        key: String,
    },
    Release {
        node: usize,
        key: String,
    },
    Wake(usize),
}

struct Write {
    key: RecordKey,
    content: Content,
    expected: u64,
}

pub(super) struct Node {
    pub(super) core: LeaseCore,
    pub(super) alive: bool,
    paused: bool,
    held_back: Vec<Event>,
    watch: u64,
    shown_until: Duration,
    /// Scheduled time of the next poll of the core.
    poll_at: Duration,
    pub(super) signals: Vec<Signal>,
}

pub(super) struct SimulatedCluster {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) keys: Vec<String>,
    pub(super) nodes: Vec<Node>,
    bucket: BTreeMap<RecordKey, VersionedContent>,
    revision: u64,
    queue: BTreeMap<(Duration, u64), Event>,
    order: u64,
    /// Percentage of messages that meet a fault.
    pub(super) faults: u64,
    /// Time that workers take to end in order.
    pub(super) drain: Duration,
}

impl SimulatedCluster {
    pub(super) fn new(seed: u64, keys: usize) -> Self {
        Self {
            now: Duration::ZERO,
            random: Random(seed),
            keys: (0..keys).map(|key| format!("{key:02}")).collect(),
            nodes: Vec::new(),
            bucket: BTreeMap::new(),
            revision: 0,
            queue: BTreeMap::new(),
            order: 0,
            faults: 0,
            drain: 50 * MS,
        }
    }

    pub(super) fn start(&mut self, name: &str) -> usize {
        let node = self.nodes.len();
        let me = Identity {
            writer: InstanceId {
                instance: name.to_owned(),
                process: format!("{name}/{node}"),
            },
            version: "1".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        };
        let timing = Timing::from(LeaseConfig::default());
        let mut core = LeaseCore::new(me, &self.keys, timing, self.now);
        for key in &self.keys {
            core.want(key);
        }
        self.nodes.push(Node {
            core,
            alive: true,
            paused: false,
            held_back: Vec::new(),
            watch: 0,
            shown_until: self.now,
            poll_at: Duration::MAX,
            signals: Vec::new(),
        });
        self.at(Duration::ZERO, Event::Poll(node));
        node
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
    }

    /// Removes the expiry of the records of an instance, as a server crash may do.
    pub(super) fn forget_ends(&mut self, node: usize) {
        let suffix = format!("/{node}");
        let bucket = &self.bucket;
        self.queue.retain(|_, event| {
            let Event::Expire { key, .. } = event else {
                return true;
            };
            let content = bucket.get(key).map(|observed| &observed.content);
            let is_theirs = matches!(content, Some(Content::Record(record))
                if record.writer().process.ends_with(&suffix));
            !is_theirs
        });
    }

    pub(super) fn pause(&mut self, node: usize, time: Duration) {
        self.nodes[node].paused = true;
        self.at(time, Event::Wake(node));
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].core.stop(self.now);
        self.at(Duration::ZERO, Event::Poll(node));
    }

    pub(super) fn give_up(&mut self, node: usize, key: &str) {
        self.nodes[node].core.give_up(self.now, key);
        self.at(Duration::ZERO, Event::Poll(node));
        let key = key.to_owned();
        self.at(Duration::from_secs(1), Event::Want { node, key });
    }

    /// The bucket is lost and created again.
    pub(super) fn lose_bucket(&mut self) {
        self.bucket.clear();
        self.revision = 0;
        for node in 0..self.nodes.len() {
            let watch = self.nodes[node].watch;
            self.at(5_000 * MS, Event::WatchEnds { node, watch });
        }
    }

    /// Instances that hold a key by their own clock, without dead ones.
    pub(super) fn holders(&self, key: &str) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.alive && node.core.is_held(self.now, key))
            .map(|(number, _)| number)
            .collect()
    }

    /// The holder of each key, when every key has exactly one.
    pub(super) fn assigned(&self) -> Option<BTreeMap<String, usize>> {
        let holder = |key: &String| match self.holders(key)[..] {
            [one] => Some((key.clone(), one)),
            _ => None,
        };
        self.keys.iter().map(holder).collect()
    }

    pub(super) fn loads(&self) -> Vec<usize> {
        let held = |node: &Node| {
            self.keys
                .iter()
                .filter(|key| node.core.is_held(self.now, key))
                .count()
        };
        let living = self
            .nodes
            .iter()
            .filter(|node| node.alive && !node.core.is_ended());
        living.map(held).collect()
    }

    /// Runs for some time or until the condition holds; true when it held.
    pub(super) fn run(&mut self, time: Duration, mut until: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if until(self) {
                return true;
            }
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= end => self.advance(),
                _ => {
                    self.now = end;
                    return until(self);
                }
            }
        }
    }

    fn advance(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return;
        };
        self.now = at;
        self.play(event);
        for key in &self.keys {
            let holders = self.holders(key);
            assert!(
                holders.len() < 2,
                "{key} is held by {holders:?} at {:?}",
                self.now
            );
        }
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), event);
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Arrive {
                node,
                ticket,
                write,
                ack,
            } => self.arrive(node, ticket, write, ack),
            Event::Ask { node, ticket, key } => {
                let gone = VersionedContent {
                    revision: 0,
                    content: Content::Absent,
                };
                let found = self.bucket.get(&key).cloned().unwrap_or(gone);
                let delay = self.latency();
                self.at(
                    delay,
                    Event::Answer {
                        node,
                        ticket,
                        answer: Answer::Found(found),
                    },
                );
            }
            Event::Expire { key, revision } => {
                if self
                    .bucket
                    .get(&key)
                    .is_some_and(|it| it.revision == revision)
                {
                    self.store(key, Content::Absent);
                }
            }
            Event::Wake(node) => {
                self.nodes[node].paused = false;
                for event in std::mem::take(&mut self.nodes[node].held_back) {
                    self.play(event);
                }
            }
            Event::Poll(node)
            | Event::Answer { node, .. }
            | Event::Show { node, .. }
            | Event::Current { node, .. }
            | Event::WatchEnds { node, .. }
            | Event::Want { node, .. }
            | Event::Release { node, .. } => self.local(node, event),
        }
    }

    fn local(&mut self, number: usize, event: Event) {
        let now = self.now;
        let node = &mut self.nodes[number];
        if !node.alive {
            return;
        }
        if node.paused {
            node.held_back.push(event);
            return;
        }
        match event {
            Event::Answer { ticket, answer, .. } => node.core.answered(now, ticket, answer),
            Event::Show {
                watch,
                key,
                observed,
                ..
            } if watch == node.watch => {
                node.core.watched(now, &key, observed);
            }
            Event::Current { watch, .. } if watch == node.watch => node.core.watch_caught_up(now),
            Event::WatchEnds { watch, .. } if watch == node.watch => node.core.watch_ended(now),
            Event::Want { key, .. } => node.core.want(&key),
            Event::Release { key, .. } => {
                node.core.release(now, &key);
                node.core.want(&key);
            }
            Event::Poll(_)
            | Event::Show { .. }
            | Event::Current { .. }
            | Event::WatchEnds { .. }
            | Event::Arrive { .. }
            | Event::Ask { .. }
            | Event::Expire { .. }
            | Event::Wake(_) => {}
        }
        for command in self.nodes[number].core.poll(now) {
            self.execute(number, command);
        }
        let node = &mut self.nodes[number];
        if node.poll_at <= now {
            node.poll_at = Duration::MAX;
        }
        if let Some(due) = node.core.due().map(|due| due.max(now))
            && due < node.poll_at
        {
            node.poll_at = due;
            self.at(due - now, Event::Poll(number));
        }
    }

    fn execute(&mut self, node: usize, command: Command) {
        match command {
            Command::Watch => self.open_watch(node),
            Command::Put {
                ticket,
                key,
                record,
                expected,
            } => {
                let content = Content::Record(record);
                self.send(
                    node,
                    ticket,
                    Write {
                        key,
                        content,
                        expected,
                    },
                );
            }
            Command::Delete {
                ticket,
                key,
                expected,
            } => {
                let content = Content::Absent;
                self.send(
                    node,
                    ticket,
                    Write {
                        key,
                        content,
                        expected,
                    },
                );
            }
            Command::Read { ticket, key } => {
                let delay = self.latency();
                if self.random.chance(self.faults) {
                    self.at(
                        ACK_TIMEOUT,
                        Event::Answer {
                            node,
                            ticket,
                            answer: Answer::NoAnswer,
                        },
                    );
                } else {
                    self.at(delay, Event::Ask { node, ticket, key });
                }
            }
            Command::Signal(signal) => {
                match &signal {
                    Signal::Recalled(key) => {
                        let (key, delay) = (key.clone(), self.drain);
                        self.at(delay, Event::Release { node, key });
                    }
                    Signal::Lost(key, _) => {
                        let key = key.clone();
                        self.at(100 * MS, Event::Want { node, key });
                    }
                    Signal::Acquired(_)
                    | Signal::Released(_)
                    | Signal::Joined
                    | Signal::NameTaken(_) => {}
                }
                self.nodes[node].signals.push(signal);
            }
        }
    }

    fn send(&mut self, node: usize, ticket: u64, write: Write) {
        let mut delay = self.latency();
        let mut ack = true;
        if self.random.chance(self.faults) {
            self.at(
                ACK_TIMEOUT,
                Event::Answer {
                    node,
                    ticket,
                    answer: Answer::Written(WriteResult::Unknown),
                },
            );
            match self.random.below(3) {
                0 => return,
                1 => {}
                _ => delay += self.random.below(15_000) as u32 * MS,
            }
            ack = false;
        }
        self.at(
            delay,
            Event::Arrive {
                node,
                ticket,
                write,
                ack,
            },
        );
    }

    fn arrive(&mut self, node: usize, ticket: u64, write: Write, ack: bool) {
        let last = self.bucket.get(&write.key).map_or(0, |it| it.revision);
        let written = if last == write.expected {
            WriteResult::Stored(self.store(write.key, write.content))
        } else {
            WriteResult::Conflict
        };
        if ack {
            let delay = self.latency();
            self.at(
                delay,
                Event::Answer {
                    node,
                    ticket,
                    answer: Answer::Written(written),
                },
            );
        }
    }

    fn store(&mut self, key: RecordKey, content: Content) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        if content != Content::Absent {
            let ttl = Timing::from(LeaseConfig::default()).ttl;
            self.at(
                ttl,
                Event::Expire {
                    key: key.clone(),
                    revision,
                },
            );
        }
        let observed = VersionedContent { revision, content };
        self.bucket.insert(key.clone(), observed.clone());
        for node in 0..self.nodes.len() {
            self.show(node, &key, &observed);
        }
        revision
    }

    /// Delivers a value to the watch in order; a watch may lag or end unnoticed.
    fn show(&mut self, node: usize, key: &RecordKey, observed: &VersionedContent) {
        if self.random.chance(self.faults / 10) {
            // From now on the watch delivers nothing.
            self.nodes[node].shown_until = Duration::MAX;
        }
        if self.nodes[node].shown_until == Duration::MAX {
            return;
        }
        let mut delay = self.latency();
        if self.random.chance(self.faults / 4) {
            delay += self.random.below(4_000) as u32 * MS;
        }
        let at = (self.now + delay).max(self.nodes[node].shown_until);
        self.nodes[node].shown_until = at;
        let watch = self.nodes[node].watch;
        let (key, observed) = (key.clone(), observed.clone());
        self.at(
            at - self.now,
            Event::Show {
                node,
                watch,
                key,
                observed,
            },
        );
    }

    fn open_watch(&mut self, node: usize) {
        self.nodes[node].watch += 1;
        self.nodes[node].shown_until = self.now;
        let watch = self.nodes[node].watch;
        if self.random.chance(self.faults) {
            self.at(ACK_TIMEOUT, Event::WatchEnds { node, watch });
            return;
        }
        let values: Vec<_> = self
            .bucket
            .iter()
            .map(|(key, it)| (key.clone(), it.clone()))
            .collect();
        for (key, observed) in values {
            self.show(node, &key, &observed);
        }
        let current = self.nodes[node].shown_until;
        if current != Duration::MAX {
            self.at(current - self.now, Event::Current { node, watch });
        }
    }

    fn latency(&mut self) -> Duration {
        (1 + self.random.below(5)) as u32 * MS
    }

    pub(super) fn members(&self) -> BTreeSet<String> {
        let present = self.bucket.iter();
        present
            .filter(|(key, it)| {
                matches!(key, RecordKey::Member(_)) && it.content != Content::Absent
            })
            .filter_map(|(key, _)| match key {
                RecordKey::Member(token) => Some(token.clone()),
                RecordKey::Lease(_) => None,
            })
            .collect()
    }
}
