//! A control plane for one channel in one process: real TLS and signatures, the real host machine, no log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use axum_server::Handle;
use nixfleet_core::host::{self, HostInput, StepCtx};
use nixfleet_proto::host::NewHost;
use nixfleet_proto::wire::{
    Dispatch, ErrorBody, EventAnswer, EventRequest, HeartbeatReply, HeartbeatRequest, HostSnapshot,
    PROTOCOL_HEADER,
};
use nixfleet_proto::{
    ClosureHash, HostEvent, HostEventBody, HostRecord, HostState, Hostname, Minutes,
    OnHealthFailure, Producer, RolloutId, RolloutState,
};
use nixfleet_trust::{ReleaseBundle, Signed};
use tokio::sync::Notify;

use super::tls::{Authority, PeerName, WithPeerName};

/// State of the control plane and the reports that it received.
#[derive(Default)]
pub struct Knowledge {
    pub records: BTreeMap<(RolloutId, Hostname), HostRecord>,
    pub queued: BTreeMap<Hostname, Dispatch>,
    /// Kinds in the order of their arrival.
    pub events: BTreeMap<Hostname, Vec<String>>,
    /// Refusals of the machine.
    pub rejected: Vec<String>,
    pub traces: BTreeSet<String>,
    pub requests: u64,
    /// Remaining event requests that get a 503.
    pub unavailable: u32,
    /// Accepted arrays of events.
    pub arrays: u64,
    /// Arrays are refused as by a gateway without support for them.
    pub arrays_refused: bool,
    /// Kinds of events that are refused permanently.
    pub refused_kinds: BTreeSet<&'static str>,
    /// Replies to heartbeats that were lies.
    pub lies: u64,
    lie: Option<Lie>,
    manifest: Option<Signed>,
    fleet: Option<Signed>,
}

/// Changes a snapshot as JSON.
pub type Lie = fn(&mut serde_json::Value);

pub struct Control {
    pub address: SocketAddr,
    fetcher: Arc<ReleaseFetcher>,
    handle: Handle<SocketAddr>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

struct ReleaseFetcher {
    status: Mutex<Knowledge>,
    queue_changed: Notify,
}

impl ReleaseFetcher {
    fn lock(&self) -> MutexGuard<'_, Knowledge> {
        self.status.lock().unwrap()
    }
}

impl Control {
    pub async fn start(authority: &Authority) -> Self {
        let fetcher = Arc::new(ReleaseFetcher {
            status: Mutex::default(),
            queue_changed: Notify::new(),
        });
        let router = Router::new()
            .route("/v1/agent/events", post(take_event))
            .route("/v1/agent/heartbeat", post(heartbeat))
            .route("/v1/agent/dispatch", get(dispatch))
            .route("/v1/rollouts/{id}", get(manifest))
            .route("/v1/rollouts/{id}/sig", get(manifest_signature))
            .route("/v1/fleet.resolved", get(fleet))
            .route("/v1/fleet.resolved/sig", get(fleet_signature))
            .with_state(Arc::clone(&fetcher));
        let handle = Handle::new();
        let server = axum_server::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap())
            .acceptor(WithPeerName::new(authority.server_config()))
            .handle(handle.clone());
        let server = tokio::spawn(server.serve(router.into_make_service()));
        let address = handle.listening().await.unwrap();
        Self {
            address,
            fetcher,
            handle,
            server,
        }
    }

    pub fn status(&self) -> MutexGuard<'_, Knowledge> {
        self.fetcher.lock()
    }

    pub async fn stop(self) {
        self.handle.shutdown();
        self.server.await.unwrap().unwrap();
    }

    /// Publishes a release, opens its only rollout and queues every host.
    pub fn publish(&self, bundle: &ReleaseBundle, targets: &BTreeMap<Hostname, ClosureHash>) {
        let signed = bundle.rollouts.values().next().unwrap();
        let manifest: nixfleet_proto::fleet::RolloutManifest =
            serde_json::from_slice(&signed.bytes).unwrap();
        let mut status = self.fetcher.lock();
        for (hostname, target) in targets {
            let id = manifest.rollout_id();
            let record = HostRecord::pending(NewHost {
                rollout_id: id.clone(),
                hostname: hostname.clone(),
                channel: id.channel(),
                target_closure: target.clone(),
                soak_minutes: Minutes::ZERO,
                dispatched_at: chrono::Utc::now(),
            });
            let dispatch = Dispatch {
                hostname: hostname.clone(),
                rollout_id: id.clone(),
                target_closure: target.clone(),
                soak_due_at: chrono::Utc::now(),
                soak_minutes: Minutes::ZERO,
                enqueued_at: chrono::Utc::now(),
            };
            status.records.insert((id, hostname.clone()), record);
            status.queued.insert(hostname.clone(), dispatch);
        }
        status.manifest = Some(signed.clone());
        status.fleet = Some(bundle.fleet.clone());
        drop(status);
        self.fetcher.queue_changed.notify_waiters();
    }

    /// From now on replies to heartbeats list every record, changed by the lie.
    pub fn lie(&self, lie: Option<Lie>) {
        self.fetcher.lock().lie = lie;
    }

    /// Waits until `reached` returns true; fails after 30 s.
    pub async fn until(&self, what: &str, reached: impl Fn(&Knowledge) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !reached(&self.fetcher.lock()) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not reached in time: {what}; events {:?}",
                self.fetcher.lock().events
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Knowledge {
    pub fn states(&self) -> BTreeMap<Hostname, HostState> {
        self.records
            .iter()
            .map(|((_, hostname), record)| (hostname.clone(), record.state))
            .collect()
    }

    pub fn all_are(&self, state: HostState) -> bool {
        self.records.values().all(|record| record.state == state)
    }

    fn fold(&mut self, key: &(RolloutId, Hostname), producer: Producer, event: HostEvent) {
        let Some(record) = self.records.get_mut(key) else {
            return self.rejected.push(format!("unknown {key:?}"));
        };
        let ctx = StepCtx {
            on_health_failure: OnHealthFailure::RollbackAndHalt,
            rollout_state: RolloutState::Active,
            received_at: chrono::Utc::now(),
        };
        let input = HostInput::Event {
            producer,
            event: &event,
        };
        match host::step(record, &input, &ctx) {
            Ok(step) => *record = step.next,
            Err(rejection) => {
                let kind = event.body.name();
                self.rejected
                    .push(format!("{} {kind} {} {rejection}", key.1, event.seq));
            }
        }
    }

    /// Recovery as a partition owner does it: what the running closure proves.
    fn recover(&mut self, key: &(RolloutId, Hostname), request: &HeartbeatRequest) {
        let Some(closure) = request.current_closure.clone() else {
            return;
        };
        let record = &self.records[key];
        let on_target = record.target_closure == closure;
        let body = match record.state {
            HostState::Activating | HostState::Deferred if on_target => {
                HostEventBody::ActivationCompleted {
                    observed_current_closure: closure,
                    exit_code: 0,
                    completed_at: request.at,
                }
            }
            HostState::Failed
                if !on_target && record.current_closure_at_dispatch.as_ref() == Some(&closure) =>
            {
                HostEventBody::RollbackComplete {
                    reverted_to_closure: closure,
                    exit_code: 0,
                    completed_at: request.at,
                }
            }
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged
            | HostState::Failed
            | HostState::Reverted => return,
        };
        let seq = record.recovery_seq + 1;
        self.fold(key, Producer::Recovery, HostEvent { seq, body });
    }
}

fn check(status: &mut Knowledge, headers: &HeaderMap) {
    status.requests += 1;
    assert_eq!(headers.get(PROTOCOL_HEADER).unwrap(), "1");
    let trace = headers.get("traceparent").unwrap().to_str().unwrap();
    assert_eq!(trace.len(), 55, "{trace}");
    status.traces.insert(trace.to_owned());
}

fn error(status: StatusCode, code: &str, retryable: bool) -> Response {
    (status, Json(error_body(code, retryable))).into_response()
}

fn error_body(code: &str, retryable: bool) -> ErrorBody {
    ErrorBody {
        code: code.to_owned(),
        message: String::new(),
        retryable,
    }
}

async fn take_event(
    State(fetcher): State<Arc<ReleaseFetcher>>,
    Extension(peer): Extension<PeerName>,
    headers: HeaderMap,
    Json(body): Json<serde_json::Value>,
) -> Response {
    let mut status = fetcher.lock();
    check(&mut status, &headers);
    if status.unavailable > 0 {
        status.unavailable -= 1;
        return error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", true);
    }
    if !body.is_array() {
        let (status, body) = fold_event(&mut status, &peer, body);
        return body.map_or_else(
            || status.into_response(),
            |body| (status, Json(body)).into_response(),
        );
    }
    if status.arrays_refused {
        return error(StatusCode::BAD_REQUEST, "invalid-field", false);
    }
    let events: Vec<serde_json::Value> = serde_json::from_value(body).unwrap();
    assert!((2..=100).contains(&events.len()), "{}", events.len());
    status.arrays += 1;
    let answers = events.into_iter().map(|event| {
        let (status, error) = fold_event(&mut status, &peer, event);
        let status = status.as_u16();
        EventAnswer { status, error }
    });
    Json(answers.collect::<Vec<_>>()).into_response()
}

fn fold_event(
    status: &mut Knowledge,
    peer: &PeerName,
    event: serde_json::Value,
) -> (StatusCode, Option<ErrorBody>) {
    let request: EventRequest = serde_json::from_value(event).unwrap();
    assert_eq!(peer.0, request.hostname.as_str());
    let kind = request.event.body.name();
    if status.refused_kinds.contains(kind) {
        let body = error_body("refused", false);
        return (StatusCode::CONFLICT, Some(body));
    }
    let kinds = status.events.entry(request.hostname.clone());
    kinds.or_default().push(kind.to_owned());
    let key = (request.rollout_id, request.hostname.clone());
    status.fold(&key, Producer::Agent, request.event.into());
    if kind == "DispatchAck" {
        status.queued.remove(&request.hostname);
    }
    (StatusCode::NO_CONTENT, None)
}

async fn heartbeat(
    State(fetcher): State<Arc<ReleaseFetcher>>,
    headers: HeaderMap,
    Json(request): Json<HeartbeatRequest>,
) -> Json<serde_json::Value> {
    let mut status = fetcher.lock();
    check(&mut status, &headers);
    let keys: Vec<_> = status.records.keys().cloned().collect();
    let own = keys.into_iter().filter(|key| key.1 == request.hostname);
    let mut snapshots = Vec::new();
    for key in own {
        status.recover(&key, &request);
        let record = &status.records[&key];
        if record.state.is_open() || status.lie.is_some() {
            snapshots.push(HostSnapshot::from(record));
        }
    }
    let mut reply = serde_json::to_value(HeartbeatReply {
        received_at: request.at,
        bootstrap_rollouts: snapshots,
    })
    .unwrap();
    if let Some(lie) = status.lie {
        let snapshots = reply["bootstrap_rollouts"].as_array_mut();
        for snapshot in snapshots.into_iter().flatten() {
            snapshot["currentClosureAtDispatch"] = "evil".into();
            snapshot["lastEventSeq"] = 1_000_000.into();
            lie(snapshot);
            status.lies += 1;
        }
    }
    Json(reply)
}

async fn dispatch(
    State(fetcher): State<Arc<ReleaseFetcher>>,
    Extension(peer): Extension<PeerName>,
    Query(query): Query<BTreeMap<String, u64>>,
    headers: HeaderMap,
) -> Response {
    check(&mut fetcher.lock(), &headers);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(query["wait"]);
    loop {
        let changed = fetcher.queue_changed.notified();
        let queued = fetcher.lock().queued.remove(peer.0.as_str());
        if let Some(dispatch) = queued {
            return Json(dispatch).into_response();
        }
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            return StatusCode::NO_CONTENT.into_response();
        }
    }
}

type Choice = fn(&Knowledge) -> Option<Vec<u8>>;

fn artifact(fetcher: &ReleaseFetcher, headers: &HeaderMap, choice: Choice) -> Response {
    let mut status = fetcher.lock();
    check(&mut status, headers);
    match choice(&status) {
        Some(bytes) => bytes.into_response(),
        None => error(StatusCode::NOT_FOUND, "not-found", false),
    }
}

async fn manifest(
    State(fetcher): State<Arc<ReleaseFetcher>>,
    Path(_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    artifact(&fetcher, &headers, |k| Some(k.manifest.clone()?.bytes))
}

async fn manifest_signature(
    State(fetcher): State<Arc<ReleaseFetcher>>,
    Path(_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    artifact(&fetcher, &headers, |k| Some(k.manifest.clone()?.signature))
}

async fn fleet(State(fetcher): State<Arc<ReleaseFetcher>>, headers: HeaderMap) -> Response {
    artifact(&fetcher, &headers, |k| Some(k.fleet.clone()?.bytes))
}

async fn fleet_signature(
    State(fetcher): State<Arc<ReleaseFetcher>>,
    headers: HeaderMap,
) -> Response {
    artifact(&fetcher, &headers, |k| Some(k.fleet.clone()?.signature))
}
