//! Counts and times of answers, by route and status.

use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, Histogram};

/// Counts an answer of any route; the time of a request that waited for news says nothing.
pub(crate) fn count(route: &str, status: StatusCode, elapsed: Duration, is_poll: bool) {
    counter(route, status).increment(1);
    if !is_poll {
        histogram(route).record(elapsed.as_secs_f64());
    }
}

fn counter(route: &str, status: StatusCode) -> Counter {
    metrics::counter!(
        "nixfleet_http_requests_total",
        "route" => route.to_owned(), "status" => status.as_str().to_owned()
    )
}

fn histogram(route: &str) -> Histogram {
    metrics::histogram!("nixfleet_http_request_seconds", "route" => route.to_owned())
}

/// Counts and times the answers of one route, whose meters are looked up once.
#[derive(Debug)]
pub struct RequestMetrics {
    route: &'static str,
    stored: Counter,
    seconds: Histogram,
}

impl RequestMetrics {
    /// Those of a route that mostly answers 204.
    pub fn of(route: &'static str) -> Self {
        Self {
            route,
            stored: counter(route, StatusCode::NO_CONTENT),
            seconds: histogram(route),
        }
    }

    /// Counts an answer.
    pub fn count(&self, status: StatusCode, elapsed: Duration) {
        if status == StatusCode::NO_CONTENT {
            self.stored.increment(1);
        } else {
            counter(self.route, status).increment(1);
        }
        self.seconds.record(elapsed.as_secs_f64());
    }
}
