//! Readiness of a process, component by component.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Readiness of the components of a process; clones share one state.
///
/// [`Readiness::expect`] or the first [`Readiness::set_ready`] creates a component. The process is ready
/// when every component is. A process without components is not ready, because it has not declared its
/// needs yet.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    components: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

/// Readiness of a process at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessReport {
    /// True when every component is ready.
    pub ready: bool,
    /// Components by name.
    pub components: BTreeMap<String, Component>,
}

/// Readiness of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// True when the component works.
    pub ready: bool,
    /// Why it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Declares components that are not ready until they report.
    pub fn expect(&self, components: &[&str]) {
        for component in components {
            self.lock()
                .entry((*component).to_owned())
                .or_insert_with(|| Err("starting".to_owned()));
            gauge(component, false);
        }
    }

    /// Reports whether a component works, or why not.
    pub fn set_ready(&self, component: &str, state: Result<(), String>) {
        let ready = state.is_ok();
        let before = self.lock().insert(component.to_owned(), state.clone());
        if before.as_ref() == Some(&state) {
            return;
        }
        gauge(component, ready);
        match state {
            Ok(()) => tracing::info!(component, "ready"),
            // A changed reason is not a new alarm.
            Err(reason) if matches!(before, Some(Err(_))) => {
                tracing::debug!(component, reason, "still not ready");
            }
            Err(reason) => tracing::warn!(component, reason, "not ready"),
        }
    }

    /// True when the component is known and works.
    pub fn is_ready(&self, component: &str) -> bool {
        matches!(self.lock().get(component), Some(Ok(())))
    }

    /// The readiness of every component.
    pub fn report(&self) -> ReadinessReport {
        let components = self.lock();
        ReadinessReport {
            ready: !components.is_empty() && components.values().all(Result::is_ok),
            components: components
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
        // Every change is one insert, so a panic elsewhere cannot leave a partial change.
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
    fn a_process_is_ready_when_every_component_is() {
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
