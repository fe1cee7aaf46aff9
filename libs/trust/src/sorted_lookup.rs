//! Lookups by name in sorted order: a merge instead of a binary search for each of a million hosts, which
//! would take most of the time of a check.

use nixfleet_proto::Hostname;
use nixfleet_proto::fleet::{Fleet, FleetHost, Wave};

/// Linear steps before a binary search.
const NEAR: usize = 8;

/// A sorted list with a position, for lookups in mostly ascending order.
pub(crate) struct SortedLookup<'a, T> {
    /// Sorted, without duplicates.
    entries: Vec<(&'a Hostname, T)>,
    /// Index of the first entry not before the last queried name.
    at: usize,
}

impl<'a> SortedLookup<'a, &'a FleetHost> {
    pub fn hosts(fleet: &'a Fleet) -> Self {
        let entries = fleet.hosts.iter().collect();
        Self { entries, at: 0 }
    }
}

impl<'a> SortedLookup<'a, u32> {
    /// The hosts of waves, each with the first wave that lists it.
    pub fn first_waves(waves: &'a [Wave]) -> Self {
        let waves = (0..).zip(waves);
        let entries =
            waves.flat_map(|(index, wave)| wave.hosts.iter().map(move |name| (name, index)));
        let mut entries: Vec<_> = entries.collect();
        // Stable, and linear for sorted waves.
        entries.sort_by_key(|(name, _)| *name);
        entries.dedup_by(|(later, _), (first, _)| later == first);
        Self { entries, at: 0 }
    }
}

impl<T: Copy> SortedLookup<'_, T> {
    /// The value of a host. Takes a few steps when the host follows the last queried one, otherwise a
    /// binary search.
    pub fn find(&mut self, hostname: &Hostname) -> Option<T> {
        let is_before = |(name, _): &(&Hostname, T)| *name < hostname;
        if self.at > 0 && !is_before(&self.entries[self.at - 1]) {
            self.at = self.entries[..self.at].partition_point(is_before);
        }
        let rest = &self.entries[self.at..];
        let near = rest.iter().take(NEAR).take_while(|entry| is_before(entry));
        let mut steps = near.count();
        if steps == NEAR {
            steps += rest[NEAR..].partition_point(is_before);
        }
        self.at += steps;
        let (name, known) = self.entries.get(self.at)?;
        (*name == hostname).then_some(*known)
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Minutes;

    use super::*;

    fn waves(lists: &[&[&str]]) -> Vec<Wave> {
        let wave = |hosts: &&[&str]| Wave {
            hosts: hosts.iter().map(|name| name.parse().unwrap()).collect(),
            soak_minutes: Minutes::ZERO,
        };
        lists.iter().map(wave).collect()
    }

    #[test]
    fn hosts_are_found_in_any_order_with_their_first_wave() {
        let waves = waves(&[&["d", "b"], &[], &["a", "b", "f"]]);
        let mut sorted = SortedLookup::first_waves(&waves);
        let mut check = |hostname: &str, expected: Option<u32>| {
            assert_eq!(
                sorted.find(&hostname.parse().unwrap()),
                expected,
                "{hostname}"
            );
        };
        for (hostname, wave) in [("a", Some(2)), ("b", Some(0)), ("c", None), ("d", Some(0))] {
            check(hostname, wave);
            check(hostname, wave);
        }
        for (hostname, wave) in [("g", None), ("0", None), ("f", Some(2)), ("a", Some(2))] {
            check(hostname, wave);
        }
        assert_eq!(SortedLookup::first_waves(&[]).find(&"a".into()), None);
    }

    #[test]
    fn distant_names_are_found() {
        let names: Vec<String> = (0..100).map(|number| format!("{number:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let waves = waves(&[&names]);
        let mut sorted = SortedLookup::first_waves(&waves);
        for step in [1, 7, 8, 9, 41, 97] {
            for at in 0..100 {
                let name = names[at * step % 100];
                assert_eq!(
                    sorted.find(&name.parse().unwrap()),
                    Some(0),
                    "{name} in steps of {step}"
                );
                assert_eq!(sorted.find(&format!("{name}-x").parse().unwrap()), None);
            }
        }
    }
}
