//! Faults that the simulation puts into the code to see that it finds them.
//!
//! Without feature `mutants` the question is a constant and every fault is compiled away; with it, the
//! one fault that [`set`] chose for the process is there. No service is ever built with it.

/// Every fault, by the crate that has it.
pub const NAMES: [&str; 2] = [
    // bus
    "lease-never-expires",
    "lease-takes-held",
];

/// True when this fault is to be made.
#[cfg(not(feature = "mutants"))]
pub const fn is(_name: &str) -> bool {
    false
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::NAMES;

    /// Place of the chosen fault in [`NAMES`], or beyond them.
    static CHOSEN: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// True when this fault is to be made.
    pub fn is(name: &str) -> bool {
        NAMES.get(CHOSEN.load(Ordering::Relaxed)) == Some(&name)
    }

    /// Chooses the fault of this process, or none.
    ///
    /// # Panics
    /// When there is no fault of that name.
    pub fn set(name: Option<&str>) {
        let place = name.map_or(usize::MAX, |name| {
            let place = NAMES.iter().position(|known| *known == name);
            place.unwrap_or_else(|| panic!("no fault is called {name}"))
        });
        CHOSEN.store(place, Ordering::Relaxed);
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{is, set};
