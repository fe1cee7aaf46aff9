//! Observes the readiness of all services and the size of both logs, several times a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nixfleet_harness::monitoring::{self, StreamState};

const INTERVAL: Duration = Duration::from_millis(100);

/// Observations.
#[derive(Debug, Default)]
pub struct Samples {
    /// Distinct answers of services that were not ready.
    pub not_ready: Vec<String>,
    /// The largest size of each log in bytes.
    pub largest: BTreeMap<String, u64>,
}

/// Targets of the sampler.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Health ports of the services by name.
    pub services: Vec<(String, u16)>,
    /// Port of nats-server's monitor.
    pub nats: u16,
    /// Names of both logs.
    pub logs: [String; 2],
}

/// A running sampler.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

impl Sampler {
    pub fn start(targets: Targets) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut observed = Samples::default();
            while !stopped.load(Ordering::Relaxed) {
                targets.observe(&mut observed);
                std::thread::park_timeout(INTERVAL);
            }
            observed
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap()
    }
}

impl Targets {
    fn observe(&self, observed: &mut Samples) {
        for answer in self.not_ready() {
            if !observed.not_ready.contains(&answer) {
                observed.not_ready.push(answer);
            }
        }
        for (name, log) in self.logs() {
            let largest = observed.largest.entry(name).or_default();
            *largest = log.bytes.max(*largest);
        }
    }

    /// Answers of services that are not ready.
    pub fn not_ready(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, port) in &self.services {
            match monitoring::get(*port, "/readyz") {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => faults.push(format!("{name}: {}", answer.body)),
                Err(error) => faults.push(format!("{name}: {error:#}")),
            }
        }
        faults
    }

    /// Current state of both logs.
    pub fn logs(&self) -> BTreeMap<String, StreamState> {
        let mut streams = monitoring::nats_streams(self.nats).unwrap();
        streams.retain(|name, _| self.logs.contains(name));
        streams
    }
}
