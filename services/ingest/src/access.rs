//! What every request passes through: identity, protocol, room, span, metrics, and the catch for
//! panics.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::request::Parts;
use http::{Extensions, StatusCode};
use nixfleet_proto::Timestamp;
use nixfleet_service::trace;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument as _, Span};

use crate::answers;
use crate::clients::Client;
use crate::clock::now;
use crate::error::{ApiError, Refusal};
use crate::identity::{Identity, Role};
use crate::paths::DISPATCH_ROUTE;
use crate::peer::Peer;
use crate::protocol;
use crate::state::App;

/// The middleware of the router: a handler finds its client in the extensions of the request.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("(unknown)", MatchedPath::as_str);
    let peer = request.extensions_mut().remove::<Peer>();
    let (mut visit, entered) = Visit::enter(&app, (route, peer), &request);
    let answer = async {
        match entered {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                next.run(request).await
            }
            Err(refused) => refused.into_response(),
        }
    };
    let count = |status, elapsed| answers::count(route, status, elapsed);
    visit.answered(route, pin!(answer), count).await
}

/// A request, from when it came until it is answered.
pub struct Visit {
    started: Instant,
    span: Span,
    identity: Option<Arc<Identity>>,
    room: Option<Room>,
}

impl Visit {
    /// Lets a request of a known client in, or says why not.
    pub fn enter(
        app: &App,
        (route, peer): (&str, Option<Peer>),
        request: &Request,
    ) -> (Self, Result<Arc<Identity>, ApiError>) {
        let started = Instant::now();
        let known = identify(peer, now());
        let identity = known.as_ref().ok();
        let identity = identity.map(|(identity, _)| Arc::clone(identity));
        let span = span_of(request, route, identity.as_deref());
        let admitted = known.and_then(|known| span.in_scope(|| admit(app, request, route, known)));
        let (room, entered) = match admitted {
            Ok((room, identity)) => (Some(room), Ok(identity)),
            Err(refused) => (None, Err(refused)),
        };
        let visit = Self {
            started,
            span,
            identity,
            room,
        };
        (visit, entered)
    }

    /// Waits for the answer, and has it counted.
    pub async fn answered(
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
            // The panic hook has logged what and where.
            ApiError::internal("answering a request", &"a panic").into_response()
        });
        let elapsed = self.started.elapsed();
        count(response.status(), elapsed);
        let client = self.identity.as_deref();
        self.span
            .in_scope(|| observe(&response, route, client, elapsed));
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
    if let Some(parent) = request.headers().get(trace::TRACEPARENT) {
        let span = tracing::error_span!("request", %method, route, client);
        trace::set_parent(&span, parent.to_str().unwrap_or_default());
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

impl Room {
    fn for_request(app: &App, client: &Client, route: &str) -> Result<Self, ApiError> {
        let (all, own) = match route {
            // A waiting request is no work; these have room of their own.
            DISPATCH_ROUTE => (&app.polls, &client.polls),
            _other => (&app.requests, &client.requests),
        };
        let own = Arc::clone(own).try_acquire_owned().map_err(|_| {
            ApiError::too_many("too-many-requests", "this client has too many open", 1)
        })?;
        let all = Arc::clone(all)
            .try_acquire_owned()
            .map_err(|_| ApiError::unavailable("too-busy", "too many requests are in flight", 1))?;
        Ok(Self {
            _all: all,
            _own: own,
        })
    }
}

fn admit(
    app: &App,
    request: &Request,
    route: &str,
    (identity, client): (Arc<Identity>, Arc<Client>),
) -> Result<(Room, Arc<Identity>), ApiError> {
    app.revoked.check(&identity)?;
    protocol::check(request.headers(), app.config.http.absent_protocol())?;
    if identity.role == Role::Agent {
        app.rates.take(&identity.name, 1)?;
    }
    let room = Room::for_request(app, &client, route)?;
    Ok((room, identity))
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

fn observe(response: &Response, route: &str, client: Option<&Identity>, elapsed: Duration) {
    let status = response.status();
    let refusal = response
        .extensions()
        .get::<Refusal>()
        .map(|refusal| refusal.0);
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

/// Refuses every role but these.
///
/// # Errors
/// 403 with the roles that may.
pub fn require(identity: &Identity, roles: &[Role]) -> Result<(), ApiError> {
    if roles.contains(&identity.role) {
        return Ok(());
    }
    let allowed: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    Err(ApiError::refused(
        StatusCode::FORBIDDEN,
        "role-not-allowed",
        format!(
            "this needs a certificate of role {}, not {}",
            allowed.join(" or "),
            identity.role.name()
        ),
    ))
}

/// The agent that asks, for handlers that answer nobody else. Its reports are too many for a
/// middleware, which boxes every request several times.
pub struct Agent(pub Arc<Identity>);

impl<S: Sync> FromRequestParts<S> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        permitted(&parts.extensions, &[Role::Agent]).map(|agent| Self(Arc::clone(agent)))
    }
}

/// Middleware of the routes for people.
pub async fn operators_only(request: Request, next: Next) -> Response {
    role_gate(request, next, &[Role::Operator]).await
}

/// Middleware of the routes that take releases.
pub async fn publishers_only(request: Request, next: Next) -> Response {
    role_gate(request, next, &[Role::Operator, Role::Ci]).await
}

async fn role_gate(request: Request, next: Next, roles: &[Role]) -> Response {
    match permitted(request.extensions(), roles) {
        Ok(_) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The client of a request that passed [`guard`], when it has one of these roles.
fn permitted<'r>(
    extensions: &'r Extensions,
    roles: &[Role],
) -> Result<&'r Arc<Identity>, ApiError> {
    let identity = extensions
        .get::<Arc<Identity>>()
        .ok_or_else(|| ApiError::internal("reading the identity", &"it is missing"))?;
    require(identity, roles)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role) -> Identity {
        let at = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap();
        Identity {
            role,
            name: "a".into(),
            common_name: "a".into(),
            not_before: at(1_000),
            not_after: at(2_000),
        }
    }

    #[test]
    fn clients_without_a_valid_certificate_are_strangers() {
        let at = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap();
        let client = || Arc::new(Client::new(&crate::config::LimitsConfig::default()));
        let known = || Some(Peer::Known(Arc::new(identity(Role::Agent)), client()));
        let code = |peer, now| identify(peer, now).err().map(|error| error.code());
        assert_eq!(code(known(), at(2_000)), None);
        assert_eq!(code(known(), at(2_001)), Some("client-certificate-expired"));
        let anonymous = Some("client-certificate-required");
        assert_eq!(code(Some(Peer::Anonymous), at(1)), anonymous);
        assert_eq!(code(None, at(1)), anonymous);
        let unusable = Peer::Unusable(crate::identity::IdentityError::Unreadable);
        assert_eq!(
            code(Some(unusable), at(1)),
            Some("client-certificate-unusable")
        );
    }

    #[test]
    fn roles_do_not_stand_in_for_each_other() {
        let check = |role, allowed: &[Role]| require(&identity(role), allowed).is_ok();
        assert!(check(Role::Agent, &[Role::Agent]));
        assert!(!check(Role::Operator, &[Role::Agent]));
        assert!(!check(Role::Agent, &[Role::Operator]));
        assert!(check(Role::Ci, &[Role::Operator, Role::Ci]));
        assert!(!check(Role::Ci, &[Role::Operator]));
    }
}
