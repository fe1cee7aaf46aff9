//! Looks at all services and both logs several times a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nixfleet_harness::monitoring::{self, StreamState};

const INTERVAL: Duration = Duration::from_millis(100);

/// What was seen.
#[derive(Debug, Default)]
pub struct Observed {
    /// What services that were not ready said, each answer once.
    pub not_ready: Vec<String>,
    /// The largest size of each log in bytes.
    pub largest: BTreeMap<String, u64>,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Health ports of the services by name.
    pub services: Vec<(String, u16)>,
    /// Port of nats-server's monitor.
    pub nats: u16,
    /// Names of both logs.
    pub logs: [String; 2],
}

/// A running observer.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Observed>,
}

impl Observer {
    pub fn start(targets: Targets) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut observed = Observed::default();
            while !stopped.load(Ordering::Relaxed) {
                targets.look(&mut observed);
                std::thread::park_timeout(INTERVAL);
            }
            observed
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Observed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap()
    }
}

impl Targets {
    fn look(&self, observed: &mut Observed) {
        for said in self.not_ready() {
            if !observed.not_ready.contains(&said) {
                observed.not_ready.push(said);
            }
        }
        for (name, log) in self.logs() {
            let largest = observed.largest.entry(name).or_default();
            *largest = log.bytes.max(*largest);
        }
    }

    /// What services that are not ready say.
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

    /// Both logs as they are now.
    pub fn logs(&self) -> BTreeMap<String, StreamState> {
        let mut streams = monitoring::nats_streams(self.nats).unwrap();
        streams.retain(|name, _| self.logs.contains(name));
        streams
    }
}
