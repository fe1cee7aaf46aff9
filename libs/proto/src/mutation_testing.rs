//! Mutation testing: faults that the simulation activates in the code, and must detect.
//!
//! Without feature `mutants`, [`is_active`] is a constant and every fault is compiled out. With it, the
//! process has the one fault that [`activate`] selected. No service is built with the feature.

/// Every fault. `applier-no-compare` is implemented by the model database, which then writes whatever
/// its cursor is.
pub const NAMES: [&str; 41] = [
    // bus
    "bus-ack-unknown",
    "bus-any-clock",
    "bus-any-last-is-mine",
    "lease-never-expires",
    "lease-takes-held",
    "reader-trusts-log",
    "trim-by-newest-checkpoint",
    "trim-without-archive",
    "checkpoints-keep-one",
    "checkpoints-delete-newer",
    // core and plan
    "fold-any-clock",
    "fold-order-clock",
    "fold-believes-hosts",
    "fold-accept-stale",
    "fold-ignore-epoch",
    "halt-ignored",
    "unsigned-commands",
    "plan-forget-queued",
    "plan-forget-pending",
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
    // agent
    "agent-closure-of-snapshot",
    "agent-ignores-age",
    "agent-ignores-newer",
    "agent-ignores-host-set",
    "agent-forgets-memory",
    "agent-takes-any-floor",
    "agent-reuses-sequences",
];

/// True when this fault is active.
#[cfg(not(feature = "mutants"))]
pub const fn is_active(_name: &str) -> bool {
    false
}

/// Number of calls so far in this process: a source of nondeterminism, which no fold may use.
#[cfg(not(feature = "mutants"))]
pub const fn call_count() -> i64 {
    0
}

#[cfg(feature = "mutants")]
mod active {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use super::NAMES;

    /// Index of the active fault in [`NAMES`], or `usize::MAX` for none.
    static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// True when this fault is active.
    pub fn is_active(name: &str) -> bool {
        NAMES.get(ACTIVE.load(Ordering::Relaxed)) == Some(&name)
    }

    /// Number of calls so far in this process: a source of nondeterminism, which no fold may use.
    pub fn call_count() -> i64 {
        static COUNT: AtomicI64 = AtomicI64::new(0);
        COUNT.fetch_add(1, Ordering::Relaxed)
    }

    /// Activates one fault in this process, or none.
    ///
    /// # Panics
    /// When there is no fault of that name.
    pub fn activate(name: Option<&str>) {
        let index = name.map_or(usize::MAX, |name| {
            let index = NAMES.iter().position(|known| *known == name);
            index.unwrap_or_else(|| panic!("no fault is called {name}"))
        });
        ACTIVE.store(index, Ordering::Relaxed);
    }
}

#[cfg(feature = "mutants")]
pub use active::{activate, call_count, is_active};
