//! Comparing an existing stream with the desired one: adopt, widen or reject it.

use std::time::Duration;

use async_nats::jetstream::stream::Config;

/// Change that makes an existing stream the desired one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    None,
    /// An update that only widens limits.
    Update(Box<Config>),
}

/// Compares an existing stream with the desired one. Limits that would shrink stay and are reported: a
/// service with another configuration must not delete data.
pub(crate) fn reconcile(
    existing: &Config,
    desired: &Config,
) -> Result<(Change, Vec<String>), String> {
    check_unchangeable(existing, desired)?;
    let mut kept = Vec::new();
    let mut widen = |name: &str, old: i64, new: i64| {
        let unlimited = |limit: i64| if limit <= 0 { i64::MAX } else { limit };
        if unlimited(new) < unlimited(old) {
            kept.push(format!("{name} stays at {old} instead of {new}"));
            return old;
        }
        if unlimited(new) == unlimited(old) {
            old
        } else {
            new
        }
    };
    let mut update = existing.clone();
    update.subjects.clone_from(&desired.subjects);
    update.max_bytes = widen("max_bytes", existing.max_bytes, desired.max_bytes);
    update.max_messages = widen("max_msgs", existing.max_messages, desired.max_messages);
    update.max_messages_per_subject = widen(
        "max_msgs_per_subject",
        existing.max_messages_per_subject,
        desired.max_messages_per_subject,
    );
    let [old, new] = [existing.max_consumers, desired.max_consumers].map(i64::from);
    if widen("max_consumers", old, new) != old {
        update.max_consumers = desired.max_consumers;
    }
    let unlimited = |age: Duration| if age.is_zero() { Duration::MAX } else { age };
    if unlimited(desired.max_age) < unlimited(existing.max_age) {
        let (old, new) = (existing.max_age.as_secs(), desired.max_age.as_secs());
        kept.push(format!("max_age stays at {old} s instead of {new} s"));
    } else {
        update.max_age = desired.max_age;
    }
    if desired.duplicate_window < existing.duplicate_window {
        let windows = [existing.duplicate_window, desired.duplicate_window];
        let [old, new] = windows.map(|window| window.as_secs());
        kept.push(format!(
            "duplicate_window stays at {old} s instead of {new} s"
        ));
    }
    update.duplicate_window = existing.duplicate_window.max(desired.duplicate_window);
    if desired.num_replicas < existing.num_replicas {
        let (old, new) = (existing.num_replicas, desired.num_replicas);
        kept.push(format!("num_replicas stays at {old} instead of {new}"));
    }
    update.num_replicas = existing.num_replicas.max(desired.num_replicas);
    update.discard = desired.discard;
    update.deny_delete |= desired.deny_delete;
    update.deny_purge |= desired.deny_purge;
    update.allow_direct |= desired.allow_direct;
    let change = if update == *existing {
        Change::None
    } else {
        Change::Update(Box::new(update))
    };
    Ok((change, kept))
}

fn check_unchangeable(existing: &Config, desired: &Config) -> Result<(), String> {
    for (property, same) in [
        (
            "subjects",
            may_become(&existing.subjects, &desired.subjects),
        ),
        ("retention", existing.retention == desired.retention),
        ("storage", existing.storage == desired.storage),
    ] {
        if !same {
            return Err(format!("its {property} are not those of this layout"));
        }
    }
    if existing.deny_purge && !desired.deny_purge {
        return Err(
            "it denies purging permanently, so that it cannot be trimmed: empty the store of \
                    NATS, so that its streams are created above the tables"
                .to_owned(),
        );
    }
    Ok(())
}

/// Subjects must be equal. One exception: a subject that all writers shared may become one per writer,
/// which shuts out whoever still publishes on the old subject.
fn may_become(existing: &[String], desired: &[String]) -> bool {
    let of_everybody = |subject: &String| subject.strip_suffix(".*").map(str::to_owned);
    let before: Option<Vec<_>> = desired.iter().map(of_everybody).collect();
    existing == desired || before.is_some_and(|before| existing == before)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nixfleet_proto::subject::Names;

    use super::*;
    use crate::config::BusConfig;
    use crate::stream_layout::desired_streams::streams;

    fn input() -> Config {
        streams(&BusConfig::default(), &Names::new("fleet")).remove(0)
    }

    #[test]
    fn an_equal_stream_is_adopted() {
        assert_eq!(reconcile(&input(), &input()), Ok((Change::None, vec![])));
    }

    #[test]
    fn limits_grow_and_never_shrink() {
        let desired = Config {
            max_bytes: input().max_bytes * 2,
            max_age: Duration::from_secs(60),
            ..input()
        };
        let (change, kept) = reconcile(&input(), &desired).unwrap();
        let expected = Config {
            max_bytes: input().max_bytes * 2,
            ..input()
        };
        assert_eq!(change, Change::Update(Box::new(expected)));
        assert_eq!(kept, ["max_age stays at 0 s instead of 60 s"]);
        let small = Config {
            max_bytes: 1,
            ..input()
        };
        let (change, kept) = reconcile(&input(), &small).unwrap();
        assert_eq!((change, kept.len()), (Change::None, 1));
    }

    #[test]
    fn a_smaller_duplicate_window_is_reported() {
        let desired = Config {
            duplicate_window: Duration::from_secs(1),
            ..input()
        };
        let (change, kept) = reconcile(&input(), &desired).unwrap();
        assert_eq!(change, Change::None);
        assert_eq!(kept, ["duplicate_window stays at 120 s instead of 1 s"]);
    }

    #[test]
    fn every_setting_of_the_layout_is_compared() {
        for stream in streams(&BusConfig::default(), &Names::new("fleet")) {
            let default = Config::default();
            // The settings that `reconcile` compares or copies. A setting of the layout that is missing
            // here would never reach an existing stream.
            let others = Config {
                name: default.name.clone(),
                subjects: default.subjects.clone(),
                retention: default.retention,
                storage: default.storage,
                discard: default.discard,
                max_bytes: default.max_bytes,
                max_messages: default.max_messages,
                max_messages_per_subject: default.max_messages_per_subject,
                max_consumers: default.max_consumers,
                max_age: default.max_age,
                duplicate_window: default.duplicate_window,
                num_replicas: default.num_replicas,
                deny_delete: default.deny_delete,
                deny_purge: default.deny_purge,
                allow_direct: default.allow_direct,
                ..stream
            };
            assert_eq!(others, default);
        }
    }

    #[test]
    fn delete_protection_is_restored() {
        let open = Config {
            deny_delete: false,
            ..input()
        };
        let (change, _) = reconcile(&open, &input()).unwrap();
        assert_eq!(change, Change::Update(Box::new(input())));
    }

    #[test]
    fn an_age_limit_is_removed_where_none_is_desired() {
        let aged = Config {
            max_age: Duration::from_secs(60),
            ..input()
        };
        let (change, kept) = reconcile(&aged, &input()).unwrap();
        assert_eq!(change, Change::Update(Box::new(input())));
        assert!(kept.is_empty());
    }

    #[test]
    fn a_log_that_can_never_be_trimmed_is_refused() {
        let denied = Config {
            deny_purge: true,
            ..input()
        };
        let reason = reconcile(&denied, &input()).unwrap_err();
        assert!(reason.contains("cannot be trimmed"), "{reason}");
    }

    #[test]
    fn a_shared_subject_becomes_one_per_writer() {
        let output = streams(&BusConfig::default(), &Names::new("fleet")).remove(1);
        assert_eq!(output.subjects, ["fleet.out.00.*"]);
        let before = Config {
            subjects: vec!["fleet.out.00".to_owned()],
            ..output.clone()
        };
        let (change, _) = reconcile(&before, &output).unwrap();
        assert_eq!(change, Change::Update(Box::new(output.clone())));
        assert!(reconcile(&output, &before).is_err());
    }

    #[test]
    fn a_stream_of_another_layout_is_refused() {
        let other = Config {
            subjects: vec!["else.>".to_owned()],
            ..input()
        };
        assert!(reconcile(&other, &input()).is_err());
    }
}
