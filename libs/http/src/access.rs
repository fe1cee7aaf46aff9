//! The checks that every request passes: identity, revocation, protocol, rate, role and room; its span, its
//! metrics, and the catch for panics.

pub mod identity;
pub mod protocol_header;
pub mod rate_limit;
pub mod revocations;
pub mod route_roles;

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::{StatusCode, Uri};
use nixfleet_proto::Timestamp;
use nixfleet_service::trace_context;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument as _, Span};

use self::identity::{Identity, Role};
use self::protocol_header::Absent;
use self::rate_limit::Rates;
use self::revocations::RevocationList;
use self::route_roles::Route;
use crate::clock::now;
use crate::config::{HttpConfig, LimitsConfig};
use crate::connections::client_limits::Client;
use crate::connections::peer::Peer;
use crate::problem::{self, ApiError};
use crate::request_body::{BodyLimit, JsonBody};
use crate::request_metrics;

/// Route of requests that match none.
const UNKNOWN_ROUTE: &str = "(unknown)";
/// Granularity of the bound of bodies: a semaphore counts no more than `u32` permits.
const BODY_UNIT_BYTES: usize = 1024;

/// What every request of a gateway is checked against.
pub struct Access {
    /// Refused certificates.
    pub revoked: RevocationList,
    /// How often each client may ask; `None` for no bound.
    pub rates: Option<Rates>,
    roles: Vec<Route>,
    absent_protocol: Absent,
    /// Route whose requests wait for news: a waiting request is no work and has room of its own.
    poll_route: Option<&'static str>,
    requests: Arc<Semaphore>,
    polls: Arc<Semaphore>,
    /// Room for bodies, in units of 1 KiB.
    bodies: Arc<Semaphore>,
}

impl Access {
    /// The checks of a gateway with these routes.
    pub fn new(roles: Vec<Route>, http: &HttpConfig, limits: &LimitsConfig) -> Self {
        let body_units =
            (limits.bodies_in_flight_bytes / BODY_UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            revoked: RevocationList::default(),
            rates: None,
            roles,
            absent_protocol: http.absent_protocol(),
            poll_route: None,
            requests: Arc::new(Semaphore::new(limits.requests_in_flight)),
            polls: Arc::new(Semaphore::new(limits.polls)),
            bodies: Arc::new(Semaphore::new(body_units)),
        }
    }

    /// The same with a bound of each client's rate.
    pub fn with_rates(self, rates: Rates) -> Self {
        Self {
            rates: Some(rates),
            ..self
        }
    }

    /// The same with a route whose requests wait.
    pub fn with_polls(self, route: &'static str) -> Self {
        Self {
            poll_route: Some(route),
            ..self
        }
    }

    /// The JSON body of a request, which takes room for its declared length, or for the limit when none
    /// is declared.
    ///
    /// # Errors
    /// 415 for another type, 503 when too many bodies are in memory.
    pub fn json_body(&self, request: Request, limit: BodyLimit) -> Result<JsonBody, ApiError> {
        JsonBody::of(request, limit, |bytes| {
            let units = u32::try_from(bytes.div_ceil(BODY_UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.bodies).try_acquire_many_owned(units);
            room.map_err(|_| ApiError::unavailable("too-busy", "too many bodies are being read", 1))
        })
    }

    fn admit(
        &self,
        request: &Request,
        route: &str,
        (identity, client): (Arc<Identity>, Arc<Client>),
    ) -> Result<(Room, Arc<Identity>), ApiError> {
        self.revoked.check(&identity)?;
        protocol_header::check(request.headers(), self.absent_protocol)?;
        if let Some(rates) = &self.rates {
            rates.take(&identity.name, 1)?;
        }
        if route != UNKNOWN_ROUTE {
            route_roles::check_route(&self.roles, (request.method(), route), &identity)?;
        }
        let room = self.room(&client, route)?;
        Ok((room, identity))
    }

    fn room(&self, client: &Client, route: &str) -> Result<Room, ApiError> {
        let (all, own) = if self.poll_route == Some(route) {
            (&self.polls, &client.polls)
        } else {
            (&self.requests, &client.requests)
        };
        let own = Arc::clone(own).try_acquire_owned().map_err(|_| {
            ApiError::too_many("too-many-requests", "this client has too many open", 1)
        })?;
        let all = Arc::clone(all)
            .try_acquire_owned()
            .map_err(|_| ApiError::unavailable("too-busy", "too many requests are in flight", 1))?;
        Ok(Room {
            _all: all,
            _own: own,
        })
    }
}

/// Middleware of a router: checks the client, after which a handler finds its [`Identity`] in the extensions
/// of the request.
pub async fn check_access(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or(UNKNOWN_ROUTE, MatchedPath::as_str);
    let peer = request.extensions_mut().remove::<Peer>();
    let (mut scope, entered) = RequestScope::enter(&access, (route, peer), &request);
    let answer = async {
        match entered {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                next.run(request).await
            }
            Err(refused) => refused.into_response(),
        }
    };
    let is_poll = access.poll_route == Some(route);
    let count = |status, elapsed| request_metrics::count(route, status, elapsed, is_poll);
    scope.answer(route, pin!(answer), count).await
}

/// A request, from its arrival to its answer.
pub struct RequestScope {
    started: Instant,
    uri: Uri,
    span: Span,
    identity: Option<Arc<Identity>>,
    room: Option<Room>,
}

impl RequestScope {
    /// Lets a request of a known client in, or gives the refusal.
    pub fn enter(
        access: &Access,
        (route, peer): (&str, Option<Peer>),
        request: &Request,
    ) -> (Self, Result<Arc<Identity>, ApiError>) {
        let started = Instant::now();
        let known = identify(peer, now());
        let identity = known.as_ref().ok();
        let identity = identity.map(|(identity, _)| Arc::clone(identity));
        let span = span_of(request, route, identity.as_deref());
        let admitted =
            known.and_then(|known| span.in_scope(|| access.admit(request, route, known)));
        let (room, entered) = match admitted {
            Ok((room, identity)) => (Some(room), Ok(identity)),
            Err(refused) => (None, Err(refused)),
        };
        let scope = Self {
            started,
            uri: request.uri().clone(),
            span,
            identity,
            room,
        };
        (scope, entered)
    }

    /// Waits for the answer, completes a refusal, and has it counted.
    pub async fn answer(
        &mut self,
        route: &str,
        answer: Pin<&mut impl Future<Output = Response>>,
        count: impl FnOnce(StatusCode, Duration),
    ) -> Response {
        let answered = nixfleet_service::panic::contained(answer);
        let answered = AssertUnwindSafe(answered).catch_unwind();
        let answered = answered.instrument(self.span.clone()).await;
        self.room = None;
        let response = answered.unwrap_or_else(|_panic| {
            // The panic hook has logged message and place.
            ApiError::internal("answering a request", &"a panic").into_response()
        });
        let (response, refusal) = problem::finish(response, self.uri.path());
        let (status, elapsed) = (response.status(), self.started.elapsed());
        count(status, elapsed);
        let client = self.identity.as_deref();
        self.span
            .in_scope(|| observe((status, refusal), route, client, elapsed));
        response
    }
}

/// The span of a request. There are too many reports of agents to note each for log lines that are hardly
/// ever written. The level of one that belongs to a trace is above what filters of logs leave out: the
/// span keeps the context.
fn span_of(request: &Request, route: &str, client: Option<&Identity>) -> Span {
    let method = request.method();
    let is_report = client.is_some_and(|client| client.role == Role::Agent);
    let client = client.map(|client| client.common_name.as_str());
    if let Some(parent) = request.headers().get(trace_context::TRACEPARENT) {
        let span = tracing::error_span!("request", %method, route, client);
        trace_context::set_parent(&span, parent.to_str().unwrap_or_default());
        span
    } else if is_report {
        tracing::debug_span!("request", %method, route, client)
    } else {
        tracing::info_span!("request", %method, route, client)
    }
}

/// Room that a request holds until it is answered: of all clients and of its own.
struct Room {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

fn identify(peer: Option<Peer>, now: Timestamp) -> Result<(Arc<Identity>, Arc<Client>), ApiError> {
    let refused =
        |code, message: String| ApiError::refused(StatusCode::UNAUTHORIZED, code, message);
    match peer {
        Some(Peer::Known(identity, _)) if identity.not_after < now => Err(refused(
            "client-certificate-expired",
            format!("the client certificate ended at {}", identity.not_after),
        )),
        Some(Peer::Known(identity, client)) => Ok((identity, client)),
        Some(Peer::Unusable(error)) => {
            Err(refused("client-certificate-unusable", error.to_string()))
        }
        Some(Peer::Anonymous) | None => Err(refused(
            "client-certificate-required",
            "a client certificate is required".to_owned(),
        )),
    }
}

fn observe(
    (status, refusal): (StatusCode, Option<&'static str>),
    route: &str,
    client: Option<&Identity>,
    elapsed: Duration,
) {
    if status.is_client_error() {
        let kind = refusal.unwrap_or("other");
        metrics::counter!("nixfleet_hostile_input_total", "kind" => kind).increment(1);
    }
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        let client = client.map(|client| client.common_name.as_str());
        tracing::error!(route, client, "a request failed");
    }
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(status = status.as_u16(), refusal, elapsed_ms, "answered");
}

/// A client of this role, for tests.
#[cfg(test)]
pub(crate) fn identity_of(role: Role) -> Identity {
    let at = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap_or_default();
    Identity {
        role,
        channels: identity::ChannelLimit::All,
        name: "a".into(),
        host: (role == Role::Agent).then(|| "a".into()),
        issuer: "CN=people".to_owned(),
        common_name: "a".into(),
        not_before: at(1_000),
        not_after: at(2_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_without_a_valid_certificate_have_no_identity() {
        let at = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap();
        let client = || Arc::new(Client::new(&LimitsConfig::default()));
        let known = || Some(Peer::Known(Arc::new(identity_of(Role::Agent)), client()));
        let code = |peer, now| identify(peer, now).err().map(|error| error.code());
        assert_eq!(code(known(), at(2_000)), None);
        assert_eq!(code(known(), at(2_001)), Some("client-certificate-expired"));
        let anonymous = Some("client-certificate-required");
        assert_eq!(code(Some(Peer::Anonymous), at(1)), anonymous);
        assert_eq!(code(None, at(1)), anonymous);
        let unusable = Peer::Unusable(identity::IdentityError::Unreadable);
        assert_eq!(
            code(Some(unusable), at(1)),
            Some("client-certificate-unusable")
        );
    }
}
