//! Wave and budgets of the hosts of a pinned set.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use nixfleet_proto::{Hostname, Pinned};

use super::host::UNKNOWN_WAVE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WaveAndBudgets {
    pub wave: u32,
    pub staged: bool,
    /// Index into the memberships.
    pub membership: u32,
}

impl WaveAndBudgets {
    /// WaveAndBudgets of a host outside of the pinned set.
    pub const UNKNOWN: Self = Self {
        wave: UNKNOWN_WAVE,
        staged: true,
        membership: u32::MAX,
    };
}

pub(super) struct WavesAndBudgets {
    pub of: Vec<WaveAndBudgets>,
    /// Distinct sets of budgets, as indices into the pinned budgets.
    pub memberships: Vec<Vec<usize>>,
}

impl WavesAndBudgets {
    /// Merges the hosts and all budget lists in the order of names: a search for each host in each list
    /// takes seconds in a fleet of a million hosts.
    pub fn of(pinned: &Pinned) -> Self {
        let hosts = &pinned.host_set;
        let mut order: Vec<usize> = (0..hosts.len()).collect();
        // Manifests are sorted: sorting is linear.
        order.sort_by_key(|index| &hosts[*index].hostname);
        let mut lists = Lists::of(pinned);
        let mut numbers: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
        let mut of = vec![WaveAndBudgets::UNKNOWN; hosts.len()];
        for index in order {
            let host = &hosts[index];
            let budgets = lists.naming(&host.hostname);
            let known = numbers.get(budgets).copied();
            let membership = known.unwrap_or_else(|| {
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                numbers.insert(budgets.to_vec(), next);
                next
            });
            of[index] = WaveAndBudgets {
                wave: host.wave_index,
                staged: host.staged,
                membership,
            };
        }
        let mut memberships = vec![Vec::new(); numbers.len()];
        for (budgets, number) in numbers {
            memberships[number as usize] = budgets;
        }
        Self { of, memberships }
    }
}

struct Lists<'p> {
    sorted: Vec<std::vec::IntoIter<&'p Hostname>>,
    /// The next name of each list that has one.
    next: BinaryHeap<Reverse<(&'p Hostname, usize)>>,
    found: Vec<usize>,
}

impl<'p> Lists<'p> {
    fn of(pinned: &'p Pinned) -> Self {
        let sorted = pinned.disruption_budgets.iter().map(|budget| {
            let mut hosts: Vec<&Hostname> = budget.hosts.iter().collect();
            hosts.sort();
            hosts.dedup();
            hosts.into_iter()
        });
        let mut lists = Self {
            sorted: sorted.collect(),
            next: BinaryHeap::new(),
            found: Vec::new(),
        };
        for list in 0..lists.sorted.len() {
            lists.step(list);
        }
        lists
    }

    fn step(&mut self, list: usize) {
        let next = self.sorted[list].next();
        self.next.extend(next.map(|name| Reverse((name, list))));
    }

    /// The lists that name a host, in order. Hosts must be queried in the order of names.
    fn naming(&mut self, hostname: &Hostname) -> &[usize] {
        self.found.clear();
        while let Some(Reverse((name, list))) = self.next.peek().copied() {
            if name > hostname {
                break;
            }
            if name == hostname {
                self.found.push(list);
            }
            self.next.pop();
            self.step(list);
        }
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::OnHealthFailure;
    use nixfleet_proto::fleet::{ResolvedBudget, Selector};
    use nixfleet_proto::rollout::PinnedHost;

    use super::*;

    fn pinned(hosts: &[&str], budgets: &[&[&str]]) -> Pinned {
        let host = |name: &&str| PinnedHost {
            hostname: name.parse().unwrap(),
            wave_index: 3,
            target_closure: "c".into(),
            staged: false,
        };
        let budget = |hosts: &&[&str]| ResolvedBudget {
            selector: Selector::default(),
            hosts: hosts.iter().map(|name| name.parse().unwrap()).collect(),
            max_in_flight: None,
            max_in_flight_pct: None,
        };
        Pinned {
            on_health_failure: OnHealthFailure::Halt,
            waves: Vec::new(),
            host_set: hosts.iter().map(host).collect(),
            disruption_budgets: budgets.iter().map(budget).collect(),
        }
    }

    #[track_caller]
    fn check(hosts: &[&str], budgets: &[&[&str]], expected: &[&[usize]]) {
        let places = WavesAndBudgets::of(&pinned(hosts, budgets));
        let found = places.of.iter().map(|place| {
            assert_eq!((place.wave, place.staged), (3, false));
            places.memberships[place.membership as usize].as_slice()
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn hosts_belong_to_the_budgets_that_name_them() {
        check(&[], &[&["a"]], &[]);
        check(&["a", "b"], &[], &[&[], &[]]);
        check(
            &["a", "b", "c", "d"],
            &[&["a", "c", "x"], &[], &["b", "c"]],
            &[&[0], &[2], &[0, 2], &[]],
        );
    }

    #[test]
    fn lists_need_not_be_sorted_nor_free_of_repetition() {
        check(
            &["d", "a", "c", "b"],
            &[&["c", "a", "c"], &["d", "a"]],
            &[&[1], &[0, 1], &[0], &[]],
        );
    }
}
