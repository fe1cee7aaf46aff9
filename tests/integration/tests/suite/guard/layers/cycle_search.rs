//! Edges between files, and a way around.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// By file, the files it names something of, and what.
pub(super) type Edges = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A shortest cycle, in the order of its edges.
pub(super) fn cycle(edges: &Edges) -> Option<Vec<String>> {
    let around = edges.keys().filter_map(|from| around(edges, from));
    around.min_by_key(Vec::len)
}

/// The shortest way from a file back to itself.
fn around(edges: &Edges, start: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(from) = open.pop_front() {
        for to in edges.get(from).into_iter().flat_map(BTreeMap::keys) {
            if to == start {
                let way = std::iter::successors(Some(from), |file| before.get(file).copied());
                let mut way: Vec<_> = way.map(str::to_owned).collect();
                way.reverse();
                return Some(way);
            }
            if !before.contains_key(to.as_str()) {
                before.insert(to, from);
                open.push_back(to);
            }
        }
    }
    None
}
