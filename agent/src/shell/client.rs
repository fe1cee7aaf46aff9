//! The agent protocol over one connection.
//!
//! Source: docs/wire-protocol.md, agent endpoints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nixfleet_proto::RolloutId;
use nixfleet_proto::bounded_reply::{Bounded, Reply};
use nixfleet_proto::wire::{
    Dispatch, ErrorBody, EventAnswer, EventRequest, HeartbeatReply, HeartbeatRequest,
    PROTOCOL_HEADER, PROTOCOL_VERSION,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::gateway_selector::GatewaySelector;
use crate::core::DeliveryResult;
use crate::core::config::{mix, salt};

/// Time for an event or an artifact.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a heartbeat; the timeout of the control plane is 5 s.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait of a long-poll in the protocol.
const DISPATCH_WAIT: Duration = Duration::from_secs(60);
/// Timeout of a long-poll: its wait and a margin.
const DISPATCH_TIMEOUT: Duration = Duration::from_secs(65);
/// Time for a whole fleet artifact on a slow link.
const ARTIFACT_TIMEOUT: Duration = Duration::from_secs(60);
/// What an artifact takes besides its hosts: channels, policies, budgets.
const ARTIFACT_BYTES_FIXED: usize = 1 << 20;
/// Largest share of one host in an artifact: names, tags, closure and keys.
const ARTIFACT_BYTES_PER_HOST: usize = 512;
/// Size limit of a detached signature; the known ones take 64 bytes.
const SIGNATURE_BYTES_MAX: usize = 1 << 10;
/// Longest text of an error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 1 << 10;
/// Size limit of all other responses.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Receive window of the connection; the default of hyper is 5 MB for each of them.
const WINDOW_BYTES: u32 = 256 << 10;

/// Network state of the host; `false` fails every request, those in flight included.
pub type NetworkLink = watch::Receiver<bool>;

/// An agent's connection to the control plane: to one gateway at a time, and to the next one after a
/// failure.
#[derive(Debug)]
pub struct Client {
    selector: GatewaySelector,
    http: reqwest::Client,
    link: NetworkLink,
    artifact_bytes_max: usize,
    trace_salt: u64,
    requests: AtomicU64,
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No response.
    #[error("no response from the control plane")]
    Network(#[source] reqwest::Error),
    /// The host has no network.
    #[error("the host has no network")]
    Offline,
    /// A response with an error status.
    #[error("the control plane responded {status}: {} {}", body.code, body.message)]
    Status {
        /// HTTP status.
        status: StatusCode,
        /// Body of the response.
        body: ErrorBody,
    },
    /// A response that violates the protocol.
    #[error("unexpected response: {0}")]
    Protocol(String),
}

impl ClientError {
    /// True when the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Network(_) | Self::Offline | Self::Protocol(_) => true,
            Self::Status { status, body } => {
                body.retryable
                    || status.is_server_error()
                    // The certificate is refused, not the request: with a new one it is taken.
                    || *status == StatusCode::UNAUTHORIZED
                    || *status == StatusCode::REQUEST_TIMEOUT
                    || *status == StatusCode::TOO_MANY_REQUESTS
            }
        }
    }
}

/// A request and its gateway.
struct Request {
    gateway: usize,
    builder: RequestBuilder,
}

impl Request {
    fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        Self {
            builder: self.builder.json(body),
            ..self
        }
    }
}

/// Signed bytes as received.
#[derive(Debug)]
pub struct SignedBytes {
    /// The artifact.
    pub bytes: Vec<u8>,
    /// Detached signature.
    pub signature: Vec<u8>,
}

impl Client {
    /// A client for `base_urls`: scheme, host and port, comma separated when there are several
    /// gateways. Connects with the first request; agents spread over the gateways by their names. Artifacts
    /// are read up to the size that a fleet of `fleet_hosts_max` hosts can need.
    ///
    /// # Errors
    /// The TLS configuration cannot be used.
    pub fn new(
        base_urls: &str,
        name: &str,
        tls: ClientConfig,
        link: NetworkLink,
        fleet_hosts_max: usize,
    ) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(WINDOW_BYTES)
            .http2_initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(1)
            .connect_timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(ClientError::Network)?;
        let started = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_nanos() as u64);
        Ok(Self {
            selector: GatewaySelector::new(base_urls, salt(name)),
            http,
            link,
            artifact_bytes_max: fleet_hosts_max
                .saturating_mul(ARTIFACT_BYTES_PER_HOST)
                .saturating_add(ARTIFACT_BYTES_FIXED),
            trace_salt: salt(name) ^ mix(started),
            requests: AtomicU64::new(0),
        })
    }

    /// Sends events in one request, in order, and returns the result of each.
    pub async fn send_events(&self, events: &[EventRequest]) -> Vec<DeliveryResult> {
        let request = self.request(Method::POST, "/v1/agent/events", REQUEST_TIMEOUT);
        let sent = match events {
            [event] => self.exchange(request.json(event)).await.map(|_| None),
            events => self.send_array(request.json(events)).await.map(Some),
        };
        match sent {
            Ok(None) => vec![DeliveryResult::Delivered],
            Ok(Some(answers)) if answers.len() == events.len() => {
                answers.into_iter().map(item_result).collect()
            }
            Ok(Some(answers)) => {
                let message = format!("{} results for {} events", answers.len(), events.len());
                vec![DeliveryResult::Unavailable { message }; events.len()]
            }
            Err(error) => vec![request_result(error, events.len()); events.len()],
        }
    }

    async fn send_array(&self, request: Request) -> Result<Vec<EventAnswer>, ClientError> {
        let response = self.exchange(request).await?;
        let bytes = self.read(response, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Sends a heartbeat.
    ///
    /// # Errors
    /// When there is no response or an error status.
    pub async fn heartbeat(
        &self,
        heartbeat: &HeartbeatRequest,
        timeout: Option<Duration>,
    ) -> Result<Bounded<HeartbeatReply>, ClientError> {
        let timeout = timeout.unwrap_or(HEARTBEAT_TIMEOUT);
        let request = self
            .request(Method::POST, "/v1/agent/heartbeat", timeout)
            .json(heartbeat);
        let gateway = request.gateway;
        let response = self.exchange(request).await?;
        let bytes = self.read(response, ANSWER_BYTES_MAX).await?;
        self.check_reply(&bytes, gateway)
    }

    /// Reads a reply within its bounds; the next request goes to another gateway otherwise.
    fn check_reply<T: Reply + DeserializeOwned>(
        &self,
        bytes: &[u8],
        gateway: usize,
    ) -> Result<Bounded<T>, ClientError> {
        let checked = serde_json::from_slice(bytes)
            .map_err(|error| error.to_string())
            .and_then(|reply| Bounded::check(reply).map_err(|fault| fault.to_string()));
        checked.map_err(|fault| {
            self.selector.failed(gateway);
            ClientError::Protocol(fault)
        })
    }

    /// Waits for a dispatch; `None` when there was none in time.
    ///
    /// # Errors
    /// When there is no response or an error status.
    pub async fn dispatch(&self) -> Result<Option<Bounded<Dispatch>>, ClientError> {
        let path = format!("/v1/agent/dispatch?wait={}", DISPATCH_WAIT.as_secs());
        let request = self.request(Method::GET, &path, DISPATCH_TIMEOUT);
        let gateway = request.gateway;
        let response = self.exchange(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let bytes = self.read(response, ANSWER_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.check_reply(&bytes, gateway).map(Some)
    }

    /// Fetches a rollout manifest, unverified.
    ///
    /// # Errors
    /// When there is no response or an error status.
    pub async fn rollout_manifest(&self, id: &RolloutId) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/rollouts/{id}");
        self.artifact(&path, self.artifact_bytes_max).await
    }

    /// Fetches the detached signature of a rollout manifest.
    ///
    /// # Errors
    /// When there is no response or an error status.
    pub async fn rollout_signature(&self, id: &RolloutId) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/rollouts/{id}/sig");
        self.artifact(&path, SIGNATURE_BYTES_MAX).await
    }

    /// Fetches the fleet, unverified.
    ///
    /// # Errors
    /// When there is no response or an error status.
    pub async fn fleet(&self) -> Result<SignedBytes, ClientError> {
        Ok(SignedBytes {
            signature: self
                .artifact("/v1/fleet.resolved/sig", SIGNATURE_BYTES_MAX)
                .await?,
            bytes: self
                .artifact("/v1/fleet.resolved", self.artifact_bytes_max)
                .await?,
        })
    }

    async fn artifact(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
        let request = self.request(Method::GET, path, ARTIFACT_TIMEOUT);
        let response = self.exchange(request).await?;
        self.read(response, bytes_max).await
    }

    fn request(&self, method: Method, path: &str, timeout: Duration) -> Request {
        let (gateway, base_url) = self.selector.current();
        let builder = self
            .http
            .request(method, format!("{base_url}{path}"))
            .timeout(timeout)
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
            .header("traceparent", self.traceparent());
        Request { gateway, builder }
    }

    /// A new trace per request: the agent's report is where a trace begins.
    fn traceparent(&self) -> String {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let high = mix(self.trace_salt.wrapping_add(count));
        let low = mix(high ^ self.trace_salt.rotate_left(17));
        let span = mix(low).max(1);
        format!("00-{high:016x}{low:016x}-{span:016x}-01")
    }

    async fn exchange(&self, request: Request) -> Result<Response, ClientError> {
        let Request { gateway, builder } = request;
        let sent = self
            .while_online(async { builder.send().await.map_err(ClientError::Network) })
            .await;
        let failed = match &sent {
            Ok(response) => response.status().is_server_error(),
            Err(error) => matches!(error, ClientError::Network(_)),
        };
        if failed {
            self.selector.failed(gateway);
        }
        let response = sent?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.read(response, ANSWER_BYTES_MAX).await?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
            code: format!("http-{}", status.as_u16()),
            message: String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned(),
            retryable: status.is_server_error(),
        });
        Err(ClientError::Status { status, body })
    }

    async fn read(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
        self.while_online(async {
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(ClientError::Network)? {
                if bytes.len() + chunk.len() > bytes_max {
                    let message = format!("more than {bytes_max} bytes");
                    return Err(ClientError::Protocol(message));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        })
        .await
    }

    async fn while_online<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut link = self.link.clone();
        tokio::select! {
            biased;
            Ok(_) = link.wait_for(|up| !up) => Err(ClientError::Offline),
            result = work => result,
        }
    }
}

/// Delivery result of each event of a failed request.
fn request_result(error: ClientError, events: usize) -> DeliveryResult {
    if error.is_retryable() {
        let message = error.to_string();
        return DeliveryResult::Unavailable { message };
    }
    match error {
        // One of the events may be invalid, or the control plane does not accept arrays.
        ClientError::Status { .. } if events > 1 => DeliveryResult::BatchRefused,
        ClientError::Status { status, body } => refused(status.as_u16(), body),
        ClientError::Network(_) | ClientError::Offline | ClientError::Protocol(_) => {
            let message = error.to_string();
            DeliveryResult::Unavailable { message }
        }
    }
}

fn item_result(answer: EventAnswer) -> DeliveryResult {
    match (answer.status, answer.error) {
        (200..=299, _) => DeliveryResult::Delivered,
        (400..=499, Some(body)) if !body.retryable => refused(answer.status, body),
        (status, body) => DeliveryResult::Unavailable {
            message: body.map_or_else(|| format!("status {status}"), |body| body.message),
        },
    }
}

fn refused(status: u16, body: ErrorBody) -> DeliveryResult {
    DeliveryResult::Refused {
        status,
        code: cut(body.code),
        message: cut(body.message),
    }
}

/// The beginning of a text that a gateway sent.
fn cut(mut text: String) -> String {
    let end = text.floor_char_boundary(ERROR_BYTES_MAX);
    text.truncate(end);
    text
}
