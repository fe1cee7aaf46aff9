//! What every connection is served with.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::future::RouteFuture;
use futures::future::{BoxFuture, Either};
use http::Method;
use hyper::body::Incoming;
use tower::Service;

use crate::access::{Visit, require};
use crate::answers::Answers;
use crate::events;
use crate::identity::Role;
use crate::paths::EVENTS_ROUTE;
use crate::peer::Peer;
use crate::routes;
use crate::state::App;

/// Answers events of agents by itself, and everything else by a [`Router`]. A router boxes a request
/// several times on its way to a handler; events are nearly all that a gateway is asked.
#[derive(Clone)]
pub struct Gateway(Arc<Parts>);

struct Parts {
    app: Arc<App>,
    answers: Answers,
    router: Router,
}

type Answered = Result<Response, Infallible>;

/// The answer to a request.
pub type Answering = Either<BoxFuture<'static, Answered>, RouteFuture<Infallible>>;

impl Gateway {
    /// Everything there is.
    pub fn new(app: &Arc<App>) -> Self {
        Self(Arc::new(Parts {
            app: Arc::clone(app),
            answers: Answers::of(EVENTS_ROUTE),
            router: routes::router(Arc::clone(app)),
        }))
    }

    /// Answers a request of a peer.
    pub fn answer(&self, peer: Peer, request: http::Request<Incoming>) -> Answering {
        let mut request = request.map(Body::new);
        if request.method() == Method::POST && request.uri().path() == EVENTS_ROUTE {
            return Either::Left(take_events(Arc::clone(&self.0), peer, request));
        }
        request.extensions_mut().insert(peer);
        Either::Right(self.0.router.clone().call(request))
    }
}

/// Reads what there is to read of the headers at once: of the many requests that wait for the log, little is
/// kept.
fn take_events(parts: Arc<Parts>, peer: Peer, request: Request) -> BoxFuture<'static, Answered> {
    let app = &parts.app;
    let (mut visit, entered) = Visit::enter(app, (EVENTS_ROUTE, Some(peer)), &request);
    let entered = entered.and_then(|identity| {
        require(&identity, &[Role::Agent])?;
        Ok((identity, app.json_body(request, app.config.event_body())?))
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
        let count = |status, elapsed| parts.answers.count(status, elapsed);
        Ok(visit.answered(EVENTS_ROUTE, pin!(answer), count).await)
    })
}

/// Without a connection that tells who asks, everyone is a stranger.
impl Service<http::Request<Incoming>> for Gateway {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Answering {
        self.answer(Peer::Anonymous, request)
    }
}
