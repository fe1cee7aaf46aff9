//! Faults of announcements that this process has reported.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Announcements that a process remembers; the newest stay.
const REMEMBERED: usize = 1_024;

/// What was reported of announcements, by sequence.
#[derive(Default)]
pub(crate) struct AnnouncementFaults {
    reported: Mutex<BTreeMap<u64, String>>,
}

impl AnnouncementFaults {
    /// True when this was not reported before of this announcement.
    pub(crate) fn is_new(&self, seq: u64, fault: &str) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.get(&seq).is_some_and(|before| before == fault) {
            return false;
        }
        reported.insert(seq, fault.to_owned());
        while reported.len() > REMEMBERED {
            reported.pop_first();
        }
        true
    }

    pub(crate) fn forget(&self, seq: u64) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_an_announcement_is_new_once() {
        let faults = AnnouncementFaults::default();
        assert!(faults.is_new(7, "missing"));
        assert!(!faults.is_new(7, "missing"));
        assert!(faults.is_new(7, "superseded") && faults.is_new(8, "missing"));
        for seq in 100..100 + REMEMBERED as u64 {
            assert!(faults.is_new(seq, "missing"));
        }
        assert!(!faults.is_new(100, "missing"), "the newest are remembered");
        faults.forget(100);
        assert!(faults.is_new(100, "missing"));
    }
}
