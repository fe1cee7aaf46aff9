//! Closures, sequences and times that a false answer may name, more of the plausible ones.

use chrono::{DateTime, TimeDelta, Utc};
use nixfleet_proto::{ClosureHash, Hostname, RolloutId, Timestamp};

use crate::byzantine::genuine_releases::AnswerContext;
use crate::engine::Rng;

/// A closure: of another release or host, one that nobody signed, or no sensible name.
pub fn closure(rng: &mut Rng, host: &Hostname, at: AnswerContext<'_>) -> ClosureHash {
    let own = at.targets_of(host);
    let others = at
        .releases()
        .iter()
        .flat_map(|release| release.targets.values());
    let others: Vec<_> = others.map(|target| &target.closure).collect();
    match rng.below(100) {
        0..=39 if !own.is_empty() => rng.pick(&own).closure.clone(),
        40..=59 if !others.is_empty() => (*rng.pick(&others)).clone(),
        60..=69 => ClosureHash::from("installed"),
        70..=94 => ClosureHash::from("evil-system"),
        95..=97 => ClosureHash::from(""),
        _ => ClosureHash::from("x".repeat(5_000)),
    }
}

/// A sequence, near a known one or near a border of some width.
pub fn sequence(rng: &mut Rng, known: u64) -> u64 {
    match rng.below(10) {
        0 => 0,
        1 => known.saturating_sub(rng.range(1, 5)),
        2 => known,
        3 => known.saturating_add(1),
        4 => known.saturating_add(rng.range(2, 200)),
        5 => *rng.pick(&[1 << 31, 1 << 32, 1 << 53]),
        6 | 7 => (i64::MAX as u64).saturating_sub(rng.below(4)),
        _ => u64::MAX - rng.below(3),
    }
}

/// A time: near now, hours or years away, or at a border of what a date can be.
pub fn time(rng: &mut Rng, now: Timestamp) -> Timestamp {
    let away = |seconds: i64| now + TimeDelta::seconds(seconds);
    match rng.below(10) {
        0 | 1 => away(-(rng.below(300) as i64)),
        2 | 3 => away(rng.below(300) as i64),
        4 => away(-86_400 * 400),
        5 => away(86_400 * 400),
        6 => year(rng, &[1, 1969, 1999, 2000]),
        7 => year(rng, &[2199, 2200, 9999, 10_000]),
        8 => DateTime::<Utc>::MIN_UTC,
        _ => DateTime::<Utc>::MAX_UTC,
    }
}

fn year(rng: &mut Rng, years: &[i32]) -> Timestamp {
    let date = chrono::NaiveDate::from_ymd_opt(*rng.pick(years), 12, 31);
    let noon = date.and_then(|date| date.and_hms_opt(23, 59, 59));
    noon.map_or(Timestamp::UNIX_EPOCH, |noon| noon.and_utc())
}

/// A rollout that was never signed.
pub fn unknown_rollout(rng: &mut Rng, at: AnswerContext<'_>) -> RolloutId {
    let known = at.releases().iter();
    let known = known.flat_map(|release| release.targets.values());
    let channels: Vec<_> = known.map(|target| target.rollout_id.channel()).collect();
    let made_up = if channels.is_empty() || rng.chance(200) {
        "nowhere@0badc0de".to_owned()
    } else {
        format!("{}@{:04x}", rng.pick(&channels), rng.below(0xffff))
    };
    made_up.parse().expect("a channel and a ref")
}
