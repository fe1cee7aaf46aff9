//! Detection of cycles among edges.

use std::collections::{BTreeMap, BTreeSet};

/// Disjoint cycles of a graph; each starts at its smallest name and follows "waits for". Empty for an
/// acyclic graph.
pub(super) fn cycles<'g>(edges: impl IntoIterator<Item = (&'g str, &'g str)>) -> Vec<Vec<String>> {
    let mut waits_for: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (gated, gates) in edges {
        waits_for.entry(gated).or_default().insert(gates);
    }
    let mut found = Vec::new();
    loop {
        release(&mut waits_for);
        let Some(cycle) = walk(&waits_for) else {
            return found;
        };
        for node in &cycle {
            waits_for.remove(node);
        }
        found.push(cycle.into_iter().map(str::to_owned).collect());
    }
}

/// Removes nodes that wait for no remaining node, until only cycles and their dependents remain.
fn release(waits_for: &mut BTreeMap<&str, BTreeSet<&str>>) {
    let mut waited_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for (gated, gates) in waits_for.iter() {
        let waiting: Vec<&str> = gates
            .iter()
            .copied()
            .filter(|node| waits_for.contains_key(node))
            .collect();
        open.insert(gated, waiting.len());
        for node in waiting {
            waited_by.entry(node).or_default().push(gated);
        }
    }
    let mut free: Vec<&str> = open
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(node, _)| *node)
        .collect();
    while let Some(node) = free.pop() {
        waits_for.remove(node);
        for gated in waited_by.get(node).into_iter().flatten() {
            if let Some(count) = open.get_mut(gated) {
                *count -= 1;
                if *count == 0 {
                    free.push(gated);
                }
            }
        }
    }
}

/// Follows the edges from the smallest node to the first repeated node.
fn walk<'g>(waits_for: &BTreeMap<&'g str, BTreeSet<&'g str>>) -> Option<Vec<&'g str>> {
    let mut node = *waits_for.keys().next()?;
    let mut path: Vec<&str> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    loop {
        if let Some(&start) = index.get(node) {
            let mut cycle = path.split_off(start);
            let smallest = (0..cycle.len()).min_by_key(|&start| cycle[start])?;
            cycle.rotate_left(smallest);
            return Some(cycle);
        }
        index.insert(node, path.len());
        path.push(node);
        node = waits_for
            .get(node)?
            .iter()
            .copied()
            .find(|next| waits_for.contains_key(next))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_found_and_named() {
        let check = |edges: &[(&'static str, &'static str)], expected: &[&[&str]]| {
            assert_eq!(cycles(edges.iter().copied()), expected, "{edges:?}");
        };
        check(&[], &[]);
        check(&[("b", "a"), ("c", "b"), ("c", "a")], &[]);
        check(&[("a", "a")], &[&["a"]]);
        check(&[("a", "b"), ("b", "a")], &[&["a", "b"]]);
        check(&[("c", "a"), ("b", "c"), ("a", "b")], &[&["a", "b", "c"]]);
        // Nodes that wait for a cycle are not part of it.
        check(
            &[("z", "a"), ("a", "b"), ("b", "a"), ("0", "z")],
            &[&["a", "b"]],
        );
        check(
            &[("a", "b"), ("b", "a"), ("x", "y"), ("y", "x")],
            &[&["a", "b"], &["x", "y"]],
        );
    }

    #[test]
    fn a_long_chain_takes_neither_recursion_nor_quadratic_time() {
        let names: Vec<String> = (0..20_000).map(|index| format!("{index:05}")).collect();
        let chain = names
            .windows(2)
            .map(|pair| (pair[0].as_str(), pair[1].as_str()));
        assert!(cycles(chain.clone()).is_empty());
        let closed = chain.chain([(names[19_999].as_str(), names[0].as_str())]);
        assert_eq!(cycles(closed)[0].len(), 20_000);
    }
}
