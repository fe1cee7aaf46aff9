//! Whether the process can do its work, part by part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// ReadinessReport of the parts of a process; clones share one state.
///
/// A part exists from [`Readiness::expect`] or its first [`Readiness::set_ready`] on, and the process is
/// ready when every part is. A process without parts is not ready: it has not said yet what it needs.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

/// State of the process at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessReport {
    /// True when every part is ready.
    pub ready: bool,
    /// Each part by name.
    pub components: BTreeMap<String, Component>,
}

/// State of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// True when it works.
    pub ready: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Declares parts that are not ready before they say so.
    pub fn expect(&self, components: &[&str]) {
        for component in components {
            self.lock()
                .entry((*component).to_owned())
                .or_insert_with(|| Err("starting".to_owned()));
            gauge(component, false);
        }
    }

    /// States whether a part works, with the reason when it does not.
    pub fn set_ready(&self, component: &str, state: Result<(), String>) {
        let ready = state.is_ok();
        let before = self.lock().insert(component.to_owned(), state.clone());
        if before.as_ref() == Some(&state) {
            return;
        }
        gauge(component, ready);
        match state {
            Ok(()) => tracing::info!(component, "ready"),
            // A reason that only changes its wording is not a new alarm.
            Err(reason) if matches!(before, Some(Err(_))) => {
                tracing::debug!(component, reason, "still not ready");
            }
            Err(reason) => tracing::warn!(component, reason, "not ready"),
        }
    }

    /// True when the part is known and works.
    pub fn is_ready(&self, component: &str) -> bool {
        matches!(self.lock().get(component), Some(Ok(())))
    }

    /// The state of every part.
    pub fn report(&self) -> ReadinessReport {
        let parts = self.lock();
        ReadinessReport {
            ready: !parts.is_empty() && parts.values().all(Result::is_ok),
            components: parts
                .iter()
                .map(|(name, state)| {
                    let component = Component {
                        ready: state.is_ok(),
                        reason: state.as_ref().err().cloned(),
                    };
                    (name.clone(), component)
                })
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Result<(), String>>> {
        // Every change is one insert, so a panic elsewhere cannot leave the map half changed.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(component: &str, ready: bool) {
    metrics::gauge!("nixfleet_component_ready", "component" => component.to_owned())
        .set(if ready { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_part_is() {
        let readiness = Readiness::default();
        assert!(!readiness.report().ready, "nothing is known yet");
        readiness.expect(&["bus", "database"]);
        readiness.set_ready("bus", Ok(()));
        assert!(!readiness.report().ready);
        assert_eq!(
            readiness.report().components["database"].reason.as_deref(),
            Some("starting")
        );
        readiness.set_ready("database", Ok(()));
        assert!(readiness.report().ready);
        readiness.set_ready("bus", Err("disconnected".into()));
        assert!(!readiness.report().ready);
        assert!(!readiness.is_ready("bus"));
    }
}
