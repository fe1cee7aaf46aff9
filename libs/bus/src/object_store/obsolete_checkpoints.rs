//! Selection of stored checkpoints that may be deleted.

use nixfleet_proto::mutation_testing;

/// A stored checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Its name.
    pub name: String,
    /// Last output sequence that it covers.
    pub out_seq: u64,
}

/// Checkpoints that are older than each kept one. A newer checkpoint may be one that is not announced yet
/// or belongs to a newer owner, because a deletion can be late.
pub fn obsolete_checkpoints(
    stored: &[StoredCheckpoint],
    is_kept: impl Fn(&str) -> bool,
) -> impl Iterator<Item = &str> {
    let kept = stored.iter().filter(|object| is_kept(&object.name));
    let kept = kept.map(|object| object.out_seq);
    let oldest = if mutation_testing::is_active("checkpoints-keep-one") {
        kept.max()
    } else {
        kept.min()
    };
    let old = stored.iter().filter(move |object| {
        let is_older = oldest.is_some_and(|oldest| object.out_seq < oldest);
        is_older
            || (mutation_testing::is_active("checkpoints-delete-newer") && !is_kept(&object.name))
    });
    old.map(|object| object.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: &[(&str, u64)], kept: &[&str], expected: &[&str]) {
        let stored: Vec<_> = stored
            .iter()
            .map(|(name, out_seq)| StoredCheckpoint {
                name: (*name).to_owned(),
                out_seq: *out_seq,
            })
            .collect();
        let deleted: Vec<_> = obsolete_checkpoints(&stored, |name| kept.contains(&name)).collect();
        assert_eq!(deleted, expected);
    }

    #[test]
    fn checkpoints_older_than_every_kept_one_are_obsolete() {
        let stored = [("a", 1), ("b", 2), ("c", 3), ("d", 4)];
        check(&stored, &["c", "d"], &["a", "b"]);
        check(&stored, &["d"], &["a", "b", "c"]);
    }

    #[test]
    fn checkpoints_newer_than_a_kept_one_stay() {
        let stored = [
            ("old", 1),
            ("previous", 2),
            ("fenced", 3),
            ("last", 4),
            ("newer", 5),
        ];
        check(&stored, &["previous", "last"], &["old"]);
        check(&stored, &["previous"], &["old"]);
    }

    #[test]
    fn without_a_stored_kept_checkpoint_none_is_obsolete() {
        check(&[("a", 1), ("b", 2)], &["c"], &[]);
        check(&[], &["c"], &[]);
    }
}
