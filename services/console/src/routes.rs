//! All routes and their roles.

mod cluster;
mod commands;
mod fleet;
mod hosts;
mod parameters;
mod releases;
mod rollouts;

use std::sync::Arc;

use axum::{Router, middleware};
use http::Method;
use nixfleet_http::{PEOPLE, READERS, Role, Route, check_access, unknown_path};

use crate::app_state::App;

/// The roles that may command.
const COMMANDERS: &[Role] = &[Role::Operator, Role::Admin];
/// The roles that may push a release.
const PUBLISHERS: &[Role] = &[Role::Operator, Role::Admin, Role::Ci];

/// Every route with its roles; what is not here is closed.
///
/// Source: docs/roles.md.
pub fn table() -> Vec<Route> {
    let route = |method, path, roles| Route {
        method,
        path,
        roles,
    };
    vec![
        route(Method::GET, "/v1/whoami", &PEOPLE),
        route(Method::GET, "/v1/status", READERS),
        route(Method::GET, "/v1/channels", READERS),
        route(Method::GET, "/v1/channels/{name}", READERS),
        route(Method::GET, "/v1/deferrals", READERS),
        route(Method::GET, "/v1/cluster", READERS),
        route(Method::GET, "/v1/hosts", READERS),
        route(Method::GET, "/v1/hosts/{hostname}", READERS),
        route(Method::GET, "/v1/rollouts", READERS),
        route(Method::GET, "/v1/rollouts/{id}/lifecycle", READERS),
        route(Method::GET, "/v1/rollouts/{id}/hosts", READERS),
        route(Method::GET, "/v1/rollouts/{id}/events", READERS),
        route(Method::POST, "/v1/rollouts/{id}/clearance", COMMANDERS),
        route(
            Method::DELETE,
            "/v1/quarantines/{channel}/{closure}",
            COMMANDERS,
        ),
        route(Method::PUT, "/v1/manifests", PUBLISHERS),
    ]
}

/// Every route behind [`check_access`], unknown paths included: a client without a role learns nothing.
pub fn router(app: Arc<App>) -> Router {
    let access = Arc::clone(&app.access);
    Router::new()
        .merge(releases::routes())
        .merge(commands::routes())
        .merge(hosts::routes())
        .merge(rollouts::routes())
        .merge(fleet::routes())
        .merge(cluster::routes())
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
        let section = sections.find(|section| section.starts_with("Routes of `console`"));
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
