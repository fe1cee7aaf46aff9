use proptest::prelude::*;

use super::*;

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:02}")).collect()
}

fn members<'a>(names: impl IntoIterator<Item = &'a String>) -> Members {
    let none = BTreeSet::new;
    names
        .into_iter()
        .map(|name| (name.clone(), none()))
        .collect()
}

fn loads(assigned: &Assignment, members: &Members) -> Vec<usize> {
    let count = |name| assigned.values().filter(|member| *member == name).count();
    members.keys().map(count).collect()
}

fn moved(before: &Assignment, after: &Assignment) -> Vec<String> {
    let differs = |key: &&String| before.get(*key) != after.get(*key);
    after.keys().filter(differs).cloned().collect()
}

#[test]
fn without_holders_the_weights_decide() {
    let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
    let assigned = assign(&keys(8), &members(&names), &Assignment::new());
    let text: Vec<_> = assigned
        .iter()
        .map(|(key, member)| format!("{key}{member}"))
        .collect();
    // Fixed values: with other weights, releases would disagree with each other.
    insta::assert_snapshot!(text.join(" "), @"00b 01a 02b 03a 04c 05c 06b 07c");
}

#[test]
fn no_members_hold_no_keys() {
    assert!(assign(&keys(8), &Members::new(), &Assignment::new()).is_empty());
    assert!(assign(&[], &members(&["a".to_owned()]), &Assignment::new()).is_empty());
}

#[test]
fn a_leader_keeps_its_key_when_candidates_join() {
    let holders = Assignment::from([("leader".to_owned(), "b".to_owned())]);
    let names: Vec<String> = ('a'..'j').map(String::from).collect();
    let assigned = assign(&["leader".to_owned()], &members(&names), &holders);
    assert_eq!(assigned, holders);
}

#[test]
fn a_declined_key_goes_to_a_member_that_accepts_it() {
    let mut all = members(&["a".to_owned(), "b".to_owned()]);
    all.insert("a".to_owned(), keys(8).into_iter().collect());
    let assigned = assign(&keys(8), &all, &Assignment::new());
    assert!(
        assigned.values().all(|member| member == "b"),
        "{assigned:?}"
    );
    // When all members decline a key, the declines are ignored.
    all.insert("b".to_owned(), keys(8).into_iter().collect());
    assert_eq!(
        loads(&assign(&keys(8), &all, &Assignment::new()), &all),
        [4, 4]
    );
}

#[test]
fn keys_that_few_accept_do_not_move_for_ever() {
    let mut all = members(&["fxw", "hy", "sah"].map(str::to_owned));
    let declined = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    all.insert("hy".to_owned(), declined(&["01", "03", "04"]));
    all.insert("sah".to_owned(), declined(&["03"]));
    let holders = ["sah", "fxw", "fxw", "fxw", "hy", "fxw", "sah"].map(str::to_owned);
    let mut assigned: Assignment = keys(7).into_iter().zip(holders).collect();
    for _ in 0..3 {
        assigned = assign(&keys(7), &all, &assigned);
    }
    assert_eq!(assign(&keys(7), &all, &assigned), assigned);
    assert_eq!(loads(&assigned, &all), [2, 2, 3]);
}

/// Arbitrary holders.
fn scattered<'a>(count: usize, names: impl Iterator<Item = &'a String>, seed: u64) -> Assignment {
    let names: Vec<_> = names.collect();
    let pick = |key: &str| names[(weight(key, &seed.to_string()) % names.len() as u64) as usize];
    let held = keys(count).into_iter().map(|key| (pick(&key).clone(), key));
    held.map(|(member, key)| (key, member)).collect()
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set("[a-z]{1,6}-[0-9a-f]{4}", 1..9)
        .prop_map(|names| names.into_iter().collect())
}

fn declining() -> impl Strategy<Value = Members> {
    let declines =
        proptest::collection::btree_set((0..12usize).prop_map(|key| format!("{key:02}")), 0..6);
    proptest::collection::btree_map("[a-z]{1,6}", declines, 1..7)
}

proptest! {
    #[test]
    fn every_key_has_one_member_within_the_cap(names in names(), count in 1..40usize) {
        let members = members(&names);
        let assigned = assign(&keys(count), &members, &Assignment::new());
        prop_assert_eq!(assigned.len(), count);
        let loads = loads(&assigned, &members);
        let cap = count.div_ceil(names.len());
        prop_assert!(loads.iter().all(|load| *load <= cap && *load >= count / names.len()));
        // The order of the arguments does not matter.
        prop_assert_eq!(assigned, assign(&keys(count), &members, &Assignment::new()));
    }

    #[test]
    fn an_assignment_is_stable(names in names(), strangers in names(), count in 1..13usize, seed: u64) {
        let members = members(&names);
        let holders = scattered(count, names.iter().chain(&strangers), seed);
        let assigned = assign(&keys(count), &members, &holders);
        prop_assert_eq!(&assigned, &assign(&keys(count), &members, &assigned));
    }

    #[test]
    fn declined_keys_move_until_they_are_accepted(
        members in declining(), count in 1..13usize, seed: u64,
    ) {
        let mut assigned = scattered(count, members.keys(), seed);
        let mut rounds = 0;
        loop {
            let next = assign(&keys(count), &members, &assigned);
            if next == assigned { break; }
            assigned = next;
            rounds += 1;
            prop_assert!(rounds <= count, "{:?}", assigned);
        }
        let wants = |member: &String, key: &String| !members[member].contains(key);
        for (key, member) in &assigned {
            let nobody = members.keys().all(|member| !wants(member, key));
            prop_assert!(nobody || wants(member, key), "{key} at {member} of {members:?}");
        }
    }

    #[test]
    fn a_new_member_acquires_only_its_share(names in names(), count in 1..40usize) {
        let (new, old) = names.split_last().unwrap();
        let keys = keys(count);
        let before = assign(&keys, &members(old), &Assignment::new());
        let after = assign(&keys, &members(&names), &before);
        let moved = moved(&before, &after);
        if !old.is_empty() {
            prop_assert!(moved.len() <= count.div_ceil(names.len()));
            prop_assert!(moved.len() >= count / names.len());
        }
        prop_assert!(moved.iter().all(|key| after[key] == *new));
    }

    #[test]
    fn only_the_keys_of_a_lost_member_move(names in names(), count in 1..40usize) {
        let (gone, left) = names.split_last().unwrap();
        let keys = keys(count);
        let before = assign(&keys, &members(&names), &Assignment::new());
        let after = assign(&keys, &members(left), &before);
        prop_assert!(moved(&before, &after).iter().all(|key| before[key] == *gone));
    }

    /// Members hand over and acquire in any order, and all see each move: every key moves at most once, and
    /// the result is balanced.
    #[test]
    fn moving_keys_one_by_one_ends_balanced(names in names(), count in 1..20usize, joins in 0..4usize, seed: u64) {
        let keys = keys(count);
        let first = names.len().saturating_sub(joins).max(1);
        let members_now = members(&names);
        let mut holders = assign(&keys, &members(&names[..first]), &Assignment::new());
        let before = holders.clone();
        for round in 0..=2 * count {
            let target = assign(&keys, &members_now, &holders);
            // A handed-over key is free before it is acquired.
            let open: Vec<_> = keys.iter().filter(|key| holders.get(*key) != target.get(*key)).collect();
            if open.is_empty() { break; }
            let key = open[(weight(&round.to_string(), &seed.to_string()) % open.len() as u64) as usize];
            if holders.remove(key).is_none() {
                holders.insert(key.clone(), target[key].clone());
            }
        }
        prop_assert_eq!(&holders, &assign(&keys, &members_now, &holders));
        let loads = loads(&holders, &members_now);
        prop_assert!(loads.iter().all(|load| *load <= count.div_ceil(names.len())));
        let new = |key: &String| names[first..].contains(&holders[key]);
        prop_assert!(moved(&before, &holders).iter().all(new));
    }
}
