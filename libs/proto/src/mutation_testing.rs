//! Faults that the simulation puts into the code to see that it finds them.
//!
//! Without feature `mutants` the question is a constant and every fault is compiled away; with it, the
//! one fault that [`activate`] chose for the process is there. No service is ever built with it.

/// Every fault. `applier-no-compare` is made by whatever stands for the database, which then writes
/// whatever its cursor is.
pub const NAMES: [&str; 30] = [
    // bus
    "bus-ack-unknown",
    "bus-any-last-is-mine",
    "lease-never-expires",
    "lease-takes-held",
    "reader-trusts-log",
    "trim-by-newest-checkpoint",
    "trim-without-archive",
    "checkpoints-keep-one",
    "checkpoints-delete-newer",
    // core and plan
    "fold-order-clock",
    "fold-accept-stale",
    "fold-ignore-epoch",
    "halt-ignored",
    "plan-forget-queued",
    "plan-forget-overlay",
    // reducer
    "reducer-drop-fence",
    "takeover-skip-barrier",
    "takeover-from-cursor",
    "owner-drop-at-split",
    "tail-loss-unseen",
    "recovery-twice",
    "recovery-no-look",
    "ready-without-append",
    "owner-folds-into-full-log",
    "checkpoint-hash-ignored",
    "checkpoint-at-frame-before",
    // applier
    "applier-no-compare",
    "applier-cursor-without-rows",
    "applier-ignores-checkpoints",
    // planner
    "planner-skip-barrier",
];

/// True when this fault is to be made.
#[cfg(not(feature = "mutants"))]
pub const fn is_active(_name: &str) -> bool {
    false
}

/// A number that depends on how often it was asked for, in this process: what no fold may use.
#[cfg(not(feature = "mutants"))]
pub const fn call_count() -> i64 {
    0
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use super::NAMES;

    /// Place of the chosen fault in [`NAMES`], or beyond them.
    static CHOSEN: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// True when this fault is to be made.
    pub fn is_active(name: &str) -> bool {
        NAMES.get(CHOSEN.load(Ordering::Relaxed)) == Some(&name)
    }

    /// A number that depends on how often it was asked for, in this process: what no fold may use.
    pub fn call_count() -> i64 {
        static COUNT: AtomicI64 = AtomicI64::new(0);
        COUNT.fetch_add(1, Ordering::Relaxed)
    }

    /// Chooses the fault of this process, or none.
    ///
    /// # Panics
    /// When there is no fault of that name.
    pub fn activate(name: Option<&str>) {
        let place = name.map_or(usize::MAX, |name| {
            let place = NAMES.iter().position(|known| *known == name);
            place.unwrap_or_else(|| panic!("no fault is called {name}"))
        });
        CHOSEN.store(place, Ordering::Relaxed);
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{activate, call_count, is_active};
