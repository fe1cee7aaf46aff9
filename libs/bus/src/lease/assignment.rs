//! The assignment of keys to members; all members that see the same bucket compute the same one.
//!
//! Rendezvous hashing orders the members for every key, independently of other keys. Alone it distributes
//! few keys unevenly. With a cap, a function of the members alone has to move keys between members that
//! stay (docs/adr/0007-partitions-stay-with-their-holders.md). So the current holders count, too: a key stays with
//! its holder until the holder is gone or holds more than its share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

/// The live members of a service, each with the keys it declines at present.
pub type Members = BTreeMap<String, BTreeSet<String>>;
/// Member by key.
pub type Assignment = BTreeMap<String, String>;

/// Assigns every key to a member: none when there are no members, at most ceil(P / N) keys each unless
/// members decline keys. Keys are distinct; holders that are not members are ignored.
///
/// Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998), for the
/// weights.
pub fn assign(keys: &[String], members: &Members, holders: &Assignment) -> Assignment {
    let mut draft = AssignmentDraft::new(keys, members, holders);
    draft.keep_held();
    draft.assign_by_weight();
    draft.assign_declined();
    draft.assigned
}

/// Weight of a member for a key; identical on every machine and in every release.
fn weight(key: &str, member: &str) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(key.as_bytes());
    hasher.update([0]);
    hasher.update(member.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize()[..8]);
    u64::from_be_bytes(first)
}

struct AssignmentDraft<'a> {
    keys: &'a [String],
    members: &'a Members,
    /// Current holders that are members, of existing keys.
    holders: BTreeMap<&'a str, &'a str>,
    /// Number of members that accept each key.
    accepting: BTreeMap<&'a str, usize>,
    quotas: BTreeMap<&'a str, usize>,
    loads: BTreeMap<&'a str, usize>,
    assigned: Assignment,
}

impl<'a> AssignmentDraft<'a> {
    fn new(keys: &'a [String], members: &'a Members, holders: &'a Assignment) -> Self {
        let holders: BTreeMap<&str, &str> = keys
            .iter()
            .filter_map(|key| {
                let (member, _) = members.get_key_value(holders.get(key)?)?;
                Some((key.as_str(), member.as_str()))
            })
            .collect();
        Self {
            keys,
            members,
            accepting: keys
                .iter()
                .map(|key| {
                    let declines = members.values();
                    let accepting = declines.filter(|declines| !declines.contains(key));
                    (key.as_str(), accepting.count())
                })
                .collect(),
            quotas: quotas(keys.len(), members, &holders),
            holders,
            loads: members.keys().map(|member| (member.as_str(), 0)).collect(),
            assigned: Assignment::new(),
        }
    }

    fn place(&mut self, key: &str, member: &'a str) {
        *self.loads.entry(member).or_default() += 1;
        self.assigned.insert(key.to_owned(), member.to_owned());
    }

    fn load(&self, member: &str) -> usize {
        self.loads.get(member).copied().unwrap_or(0)
    }

    fn has_room(&self, member: &str) -> bool {
        self.load(member) < self.quotas.get(member).copied().unwrap_or(0)
    }

    fn wants(&self, member: &str, key: &str) -> bool {
        self.members
            .get(member)
            .is_some_and(|declines| !declines.contains(key))
    }

    /// Order of keys for members: those that fewer members accept come first, since the others find a place
    /// later; otherwise keys that nobody else accepts would be given up, and come back, for ever.
    fn rank(&self, key: &str, member: &str) -> (Reverse<usize>, u64) {
        let accepting = self.accepting.get(key).copied().unwrap_or(0);
        (Reverse(accepting), weight(key, member))
    }

    /// Members keep the keys they hold up to their quota, those of the highest rank first.
    fn keep_held(&mut self) {
        let mut held: Vec<_> = self
            .holders
            .iter()
            .map(|(key, member)| (self.rank(key, member), *key, *member))
            .collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key, member) in held {
            if self.has_room(member) && self.wants(member, key) {
                self.place(key, member);
            }
        }
    }

    /// Unassigned keys go to members that do not decline them and are below their quota, highest rank
    /// first.
    fn assign_by_weight(&mut self) {
        let mut pairs = Vec::new();
        for key in self.unassigned() {
            for member in self.members.keys() {
                if self.has_room(member) && self.wants(member, key) {
                    pairs.push((self.rank(key, member), key, member.as_str()));
                }
            }
        }
        pairs.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key, member) in pairs {
            if self.has_room(member) && !self.assigned.contains_key(key) {
                self.place(key, member);
            }
        }
    }

    /// Assigns the keys that every member below its quota declines. A key without a worker is worse than an
    /// uneven distribution: the least loaded member that does not decline it gets it, or the least loaded
    /// of all. On a tie the current holder keeps it, so that the key does not move back and forth.
    fn assign_declined(&mut self) {
        for key in self.unassigned() {
            let holder = self.holders.get(key).copied();
            let wanted_somewhere = self.members.keys().any(|member| self.wants(member, key));
            let best = self
                .members
                .keys()
                .map(String::as_str)
                .filter(|member| !wanted_somewhere || self.wants(member, key))
                .min_by_key(|member| {
                    let stays = holder != Some(*member);
                    (self.load(member), stays, u64::MAX - weight(key, member))
                });
            if let Some(member) = best {
                self.place(key, member);
            }
        }
    }

    fn unassigned(&self) -> Vec<&'a str> {
        let keys = self.keys.iter().map(String::as_str);
        keys.filter(|key| !self.assigned.contains_key(*key))
            .collect()
    }
}

/// floor(P / N) keys for every member, and one more for the P mod N members that hold most, so that a
/// member with a larger share keeps it.
fn quotas<'a>(
    keys: usize,
    members: &'a Members,
    holders: &BTreeMap<&str, &str>,
) -> BTreeMap<&'a str, usize> {
    if members.is_empty() {
        return BTreeMap::new();
    }
    let (share, larger) = (keys / members.len(), keys % members.len());
    let mut order: Vec<_> = members
        .keys()
        .map(|member| {
            let held = holders.values().filter(|holder| *holder == member).count();
            (held, weight("", member), member.as_str())
        })
        .collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    order
        .iter()
        .enumerate()
        .map(|(rank, (_, _, member))| (*member, share + usize::from(rank < larger)))
        .collect()
}

#[cfg(test)]
mod tests;
