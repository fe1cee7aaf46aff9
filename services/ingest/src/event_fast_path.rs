//! The service behind the listener: a short way for events, a router for everything else.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::future::RouteFuture;
use futures::future::{BoxFuture, Either};
use http::Method;
use hyper::body::Incoming;
use nixfleet_http::{Gateway, Peer, RequestMetrics, RequestScope, RouterGateway};

use crate::app_state::App;
use crate::events;
use crate::routes::{self, paths::EVENTS_ROUTE};

/// Answers events of agents by itself, and everything else by a router. A router boxes a request
/// several times on its way to a handler; events are nearly all that a gateway is asked.
#[derive(Clone)]
pub struct AgentGateway(Arc<Parts>);

struct Parts {
    app: Arc<App>,
    metrics: RequestMetrics,
    router: RouterGateway,
}

type Answered = Result<Response, Infallible>;

pub type Answering = Either<BoxFuture<'static, Answered>, RouteFuture<Infallible>>;

impl AgentGateway {
    pub fn new(app: &Arc<App>) -> Self {
        Self(Arc::new(Parts {
            app: Arc::clone(app),
            metrics: RequestMetrics::of(EVENTS_ROUTE),
            router: RouterGateway(routes::router(Arc::clone(app))),
        }))
    }
}

impl Gateway for AgentGateway {
    type Answering = Answering;

    fn answer(&self, peer: Peer, request: http::Request<Incoming>) -> Answering {
        if request.method() == Method::POST && request.uri().path() == EVENTS_ROUTE {
            let request = request.map(Body::new);
            return Either::Left(take_events(Arc::clone(&self.0), peer, request));
        }
        Either::Right(self.0.router.answer(peer, request))
    }
}

/// Reads what there is to read of the headers at once: of the many requests that wait for the log, little is
/// kept.
fn take_events(parts: Arc<Parts>, peer: Peer, request: Request) -> BoxFuture<'static, Answered> {
    let app = &parts.app;
    let (mut scope, entered) =
        RequestScope::enter(&app.access, (EVENTS_ROUTE, Some(peer)), &request);
    let entered = entered.and_then(|identity| {
        let body = app.access.json_body(request, app.config.body_limit())?;
        Ok((identity, body))
    });
    Box::pin(async move {
        let answer = async {
            match entered {
                Ok((identity, body)) => {
                    let answered = events::answer(&parts.app, &identity, body).await;
                    answered.into_response()
                }
                Err(refused) => refused.into_response(),
            }
        };
        let count = |status, elapsed| parts.metrics.count(status, elapsed);
        Ok(scope.answer(EVENTS_ROUTE, pin!(answer), count).await)
    })
}
