//! Members with workers that record their keys, and an observer of the bucket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_nats::jetstream::kv::Operation;
use futures::StreamExt as _;
use nixfleet_bus::{Bus, BusConfig, Lease, LeaseConfig, Leases, Membership};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::SOON;

pub const TTL: Duration = Duration::from_secs(5);
pub const CONFIG: LeaseConfig = LeaseConfig {
    ttl_seconds: TTL.as_secs(),
    renew_seconds: 1,
    hand_over_seconds: 10,
};

/// Seeded choices.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

type Held = BTreeMap<String, String>;

/// Claims of the workers: key and member.
#[derive(Clone)]
pub struct Board {
    keys: Arc<[String]>,
    held: Arc<watch::Sender<Held>>,
    violations: Arc<Mutex<Vec<String>>>,
    taken: Arc<AtomicUsize>,
}

impl Board {
    pub fn new(keys: usize) -> Self {
        Self::with_keys((0..keys).map(|key| format!("{key:02}")))
    }

    pub fn with_keys(keys: impl IntoIterator<Item = String>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            held: Arc::new(watch::Sender::default()),
            violations: Arc::default(),
            taken: Arc::default(),
        }
    }

    fn took(&self, key: &str, name: &str) {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.held.send_modify(|held| {
            if let Some(other) = held.insert(key.to_owned(), name.to_owned()) {
                let violation = format!("{name} took {key} while {other} held it");
                self.violations.lock().unwrap().push(violation);
            }
        });
    }

    fn gave(&self, key: &str, name: &str) {
        self.held.send_modify(|held| {
            if held.get(key).is_some_and(|who| who == name) {
                held.remove(key);
            }
        });
    }

    /// Removes the claims of a killed member.
    pub fn forget(&self, name: &str) {
        self.held
            .send_modify(|held| held.retain(|_, who| who != name));
    }

    /// Number of times that a key was taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    pub fn assert_no_violation(&self) {
        let violations = self.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// Waits for a condition; false at the timeout.
    pub async fn until_or_else(
        &self,
        patience: Duration,
        condition: impl Fn(&Held) -> bool,
    ) -> bool {
        let mut held = self.held.subscribe();
        let comes = held.wait_for(|held| condition(held));
        tokio::time::timeout(patience, comes).await.is_ok()
    }

    pub async fn until(&self, patience: Duration, condition: impl Fn(&Held) -> bool) {
        let came = self.until_or_else(patience, condition).await;
        assert!(came, "after {patience:?}: {:?}", self.held.borrow());
    }

    /// Waits until every key is held and the shares of the members are even.
    pub async fn balanced(&self, members: usize, patience: Duration) -> Held {
        let (low, high) = (self.keys.len() / members, self.keys.len().div_ceil(members));
        self.until(patience, |held| {
            let mut loads = BTreeMap::<&str, usize>::new();
            for who in held.values() {
                *loads.entry(who).or_default() += 1;
            }
            let even = loads.values().all(|load| (low..=high).contains(load));
            held.len() == self.keys.len() && even && loads.len() == members.min(self.keys.len())
        })
        .await;
        self.held.borrow().clone()
    }
}

/// A member with one worker per key in its own runtime, so that it can be killed like a process.
pub struct Member {
    name: String,
    stop: CancellationToken,
    fails: CancellationToken,
    state: watch::Receiver<Result<(), String>>,
    runtime: Option<tokio::runtime::Runtime>,
    done: Option<std::sync::mpsc::Receiver<()>>,
}

impl Member {
    pub fn join(config: &BusConfig, name: &str, board: &Board) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, fails) = (CancellationToken::new(), CancellationToken::new());
        let (ended, done) = std::sync::mpsc::channel();
        let (says, state) = watch::channel(Ok(()));
        let work = live(Life {
            config: config.clone(),
            name: name.to_owned(),
            board: board.clone(),
            stop: stop.clone(),
            fails: fails.clone(),
            says,
        });
        runtime.spawn(async move {
            work.await;
            ended.send(()).unwrap();
        });
        Self {
            name: name.to_owned(),
            stop,
            fails,
            state,
            runtime: Some(runtime),
            done: Some(done),
        }
    }

    /// Stops the member gracefully; the returned task ends with it.
    pub fn stop(mut self) -> JoinHandle<()> {
        self.stop.cancel();
        let done = self.done.take().unwrap();
        std::thread::spawn(move || {
            done.recv_timeout(SOON).unwrap();
            drop(self);
        })
    }

    /// Ends without a word, and returns the name.
    pub fn kill(mut self) -> String {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.name.clone()
    }

    /// From now on work here ends with a failure.
    pub fn fail_from_now_on(&self) {
        self.fails.cancel();
    }

    /// Waits until membership is refused, and returns the reason.
    pub async fn refusal(&self) -> String {
        self.state(Result::is_err).await.unwrap_err()
    }

    /// Waits until membership is not refused any more.
    pub async fn accepted(&self) {
        self.state(Result::is_ok).await.unwrap();
    }

    async fn state(&self, is_it: fn(&Result<(), String>) -> bool) -> Result<(), String> {
        let mut state = self.state.clone();
        let comes = tokio::time::timeout(SOON, state.wait_for(is_it)).await;
        comes.expect("it says so soon").unwrap().clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Life {
    config: BusConfig,
    name: String,
    board: Board,
    stop: CancellationToken,
    fails: CancellationToken,
    says: watch::Sender<Result<(), String>>,
}

async fn live(life: Life) {
    let bus = Bus::connect(life.config, &life.name).await.unwrap();
    let member = Membership {
        service: "reducer",
        instance: &life.name,
        keys: &life.board.keys,
        config: CONFIG,
    };
    let leases = bus.leases(member, &life.stop);
    let mut workers = tokio::task::JoinSet::new();
    for key in life.board.keys.iter().cloned() {
        let worker = Worker {
            key,
            name: life.name.clone(),
            leases: leases.clone(),
            board: life.board.clone(),
            fails: life.fails.clone(),
        };
        let stop = life.stop.clone();
        workers.spawn(async move { worker.run(&stop).await });
    }
    while !life.stop.is_cancelled() {
        drop(life.says.send_replace(bus.check()));
        tokio::select! {
            () = life.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    while workers.join_next().await.is_some() {}
    bus.close().await;
}

struct Worker {
    key: String,
    name: String,
    leases: Leases,
    board: Board,
    fails: CancellationToken,
}

impl Worker {
    async fn run(&self, stop: &CancellationToken) {
        loop {
            let lease = tokio::select! {
                () = stop.cancelled() => return,
                lease = self.leases.acquire(&self.key) => lease,
            };
            self.board.took(&self.key, &self.name);
            self.work(&lease).await;
            self.board.gave(&self.key, &self.name);
            if self.fails.is_cancelled() {
                lease.give_up().await;
                // As services do after a failure.
                tokio::time::sleep(Duration::from_millis(500)).await;
            } else {
                lease.release().await;
            }
        }
    }

    async fn work(&self, lease: &Lease) {
        tokio::select! {
            () = lease.recalled() => {}
            () = self.fails.cancelled() => {}
        }
    }
}

/// Follows the bucket on its own connection: every write, in order.
pub struct Observer {
    renewals: mpsc::UnboundedReceiver<()>,
    violations: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Observer {
    pub async fn start(config: &BusConfig) -> Self {
        let client = async_nats::connect(&config.url).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let bucket = context
            .get_key_value(format!("{}-leases", config.prefix))
            .await
            .unwrap();
        let mut entries = bucket.watch_all().await.unwrap();
        let (renewed, renewals) = mpsc::unbounded_channel();
        let violations: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&violations);
        let task = tokio::spawn(async move {
            let mut writers = BTreeMap::<String, String>::new();
            while let Some(entry) = entries.next().await {
                let entry = entry.unwrap();
                if entry.operation != Operation::Put {
                    writers.remove(&entry.key);
                    continue;
                }
                let record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
                let process = record["process"].as_str().unwrap().to_owned();
                match writers.insert(entry.key.clone(), process.clone()) {
                    Some(before) if before != process => {
                        let violation = format!("{process} wrote {} over {before}", entry.key);
                        noted.lock().unwrap().push(violation);
                    }
                    _ => {}
                }
                // The receiver may be dropped.
                if entry.key.starts_with("lease.") && renewed.send(()).is_err() {
                    return;
                }
            }
        });
        Self {
            renewals,
            violations,
            task,
        }
    }

    /// Clears the recorded writes.
    pub fn forget(&mut self) {
        while self.renewals.try_recv().is_ok() {}
    }

    /// Waits until leases were written so often.
    pub async fn renewals(&mut self, count: usize) {
        let all = async {
            for _ in 0..count {
                self.renewals.recv().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, all)
            .await
            .expect("leases are renewed");
    }

    pub fn assert_no_violation(&self) {
        let violations = self.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
