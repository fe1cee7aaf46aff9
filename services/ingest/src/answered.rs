//! Metrics of answers. What counts a route and a status is looked up in the recorder once, not with
//! every request.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, Histogram};

/// What counts the answers of one status of one route.
#[derive(Clone)]
struct Meters {
    requests: Counter,
    seconds: Histogram,
}

impl Meters {
    fn of(route: &str, status: StatusCode) -> Self {
        let (route, status) = (route.to_owned(), status.as_str().to_owned());
        Self {
            seconds: metrics::histogram!("nixfleet_http_request_seconds", "route" => route.clone()),
            requests: metrics::counter!(
                "nixfleet_http_requests_total",
                "route" => route, "status" => status
            ),
        }
    }
}

/// The meters of all routes: there are as many as the router has, and statuses that were answered.
#[derive(Default)]
pub struct Answered {
    meters: RwLock<HashMap<String, HashMap<StatusCode, Meters>>>,
}

impl Answered {
    /// Counts an answer; how long it took says something unless the request was there to wait.
    pub fn count(&self, route: &str, status: StatusCode, took: Option<Duration>) {
        let meters = self.meters(route, status);
        meters.requests.increment(1);
        if let Some(took) = took {
            meters.seconds.record(took.as_secs_f64());
        }
    }

    fn meters(&self, route: &str, status: StatusCode) -> Meters {
        // No panic can happen half-way through a change of the map.
        let known = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(meters) = known.get(route).and_then(|route| route.get(&status)) {
            return meters.clone();
        }
        drop(known);
        let mut known = self.meters.write().unwrap_or_else(PoisonError::into_inner);
        let of_route = known.entry(route.to_owned()).or_default();
        let meters = of_route.entry(status);
        meters.or_insert_with(|| Meters::of(route, status)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn answers_are_counted_by_route_and_status() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let answered = Answered::default();
        metrics::with_local_recorder(&recorder, || {
            let second = Some(Duration::from_secs(1));
            answered.count("/a", StatusCode::OK, second);
            answered.count("/a", StatusCode::OK, second);
            answered.count("/a", StatusCode::NOT_FOUND, second);
            answered.count("/b", StatusCode::OK, None);
        });
        let text = handle.render();
        for line in [
            r#"nixfleet_http_requests_total{route="/a",status="200"} 2"#,
            r#"nixfleet_http_requests_total{route="/a",status="404"} 1"#,
            r#"nixfleet_http_requests_total{route="/b",status="200"} 1"#,
            r#"nixfleet_http_request_seconds_count{route="/a"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"nixfleet_http_request_seconds_count{route="/b"} 1"#));
    }
}
