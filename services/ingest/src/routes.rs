//! All routes, for certificates of hosts alone.

mod artifacts;
mod heartbeats_and_dispatches;
pub mod paths;

use std::sync::Arc;

use axum::{Router, middleware};
use http::Method;
use nixfleet_http::{Role, Route, check_access, unknown_path};

use self::paths::{DISPATCH_ROUTE, EVENTS_ROUTE};
use crate::app_state::App;

/// Every route; what is not here is closed.
pub fn table() -> Vec<Route> {
    let of_agents = |method, path| Route {
        method,
        path,
        roles: &[Role::Agent],
    };
    vec![
        of_agents(Method::POST, EVENTS_ROUTE),
        of_agents(Method::POST, "/v1/agent/heartbeat"),
        of_agents(Method::GET, DISPATCH_ROUTE),
        of_agents(Method::GET, "/v1/fleet.resolved"),
        of_agents(Method::GET, "/v1/fleet.resolved/sig"),
        of_agents(Method::GET, "/v1/rollouts/{id}"),
        of_agents(Method::GET, "/v1/rollouts/{id}/sig"),
    ]
}

/// Every route behind [`check_access`], unknown paths included: a client without a role learns nothing.
pub fn router(app: Arc<App>) -> Router {
    let access = Arc::clone(&app.access);
    Router::new()
        .merge(heartbeats_and_dispatches::routes())
        .merge(artifacts::routes())
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(access, check_access))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_the_documentation() {
        let docs = include_str!("../../../docs/roles.md");
        let mut sections = docs.split("\n## ");
        let section = sections.find(|section| section.starts_with("Routes of `ingest`"));
        let rows = section.into_iter().flat_map(str::lines);
        let documented: Vec<&str> = rows.filter(|row| row.starts_with("| `")).collect();
        let table: Vec<String> = table()
            .into_iter()
            .map(|route| {
                let roles: Vec<&str> = route.roles.iter().map(|role| role.name()).collect();
                let (method, path) = (route.method, route.path);
                format!("| `{method} {path}` | {} |", roles.join(" "))
            })
            .collect();
        assert_eq!(table, documented);
    }
}
