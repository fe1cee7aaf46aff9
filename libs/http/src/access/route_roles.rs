//! The table of routes and the roles that each of them takes.

use http::{Method, StatusCode};
use nixfleet_proto::ChannelName;

use super::identity::{Identity, Role};
use crate::problem::{ApiError, method_not_allowed};

/// The roles that may read.
pub const READERS: &[Role] = &[Role::Viewer, Role::Operator, Role::Approver, Role::Admin];

/// One route and the roles that may use it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Method; `GET` stands for `HEAD` too.
    pub method: Method,
    /// Path with its parameters, as the router has it.
    pub path: &'static str,
    /// Who may use it.
    pub roles: &'static [Role],
}

/// Checks the role of a client against the table of a gateway. A route that the table lacks is closed.
///
/// # Errors
/// 403 with the roles that may, 405 for a path that has other methods.
pub(super) fn check_route(
    table: &[Route],
    (method, path): (&Method, &str),
    identity: &Identity,
) -> Result<(), ApiError> {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut of_path = table.iter().filter(|route| route.path == path).peekable();
    if of_path.peek().is_none() {
        return require(identity, &[]);
    }
    match of_path.find(|route| route.method == *method) {
        Some(route) => require(identity, route.roles),
        None => Err(method_not_allowed(method, path)),
    }
}

/// Refuses (403) a channel that the certificate is not for.
pub fn require_channel(identity: &Identity, channel: &ChannelName) -> Result<(), ApiError> {
    if identity.sees(channel) {
        return Ok(());
    }
    let message = format!("the certificate is not for channel {channel}");
    let status = StatusCode::FORBIDDEN;
    Err(ApiError::refused(status, "channel-not-allowed", message))
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
    let message = match allowed[..] {
        [] => "no role may use this route".to_owned(),
        _ => format!(
            "this needs a certificate of role {}, not {}",
            allowed.join(" or "),
            identity.role.name()
        ),
    };
    let status = StatusCode::FORBIDDEN;
    Err(ApiError::refused(status, "role-not-allowed", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::identity::ChannelLimit;
    use crate::access::identity_of;

    fn table() -> Vec<Route> {
        let route = |method, path, roles| Route {
            method,
            path,
            roles,
        };
        vec![
            route(Method::GET, "/v1/hosts", READERS),
            route(Method::PUT, "/v1/manifests", &[Role::Admin, Role::Ci]),
        ]
    }

    #[track_caller]
    fn check(role: Role, method: &Method, path: &str, allowed: bool) {
        let identity = identity_of(role);
        let checked = check_route(&table(), (method, path), &identity);
        assert_eq!(checked.is_ok(), allowed, "{role:?} {method} {path}");
    }

    #[test]
    fn a_route_takes_the_roles_of_its_row_and_no_others() {
        check(Role::Viewer, &Method::GET, "/v1/hosts", true);
        check(Role::Viewer, &Method::HEAD, "/v1/hosts", true);
        check(Role::Ci, &Method::GET, "/v1/hosts", false);
        check(Role::Agent, &Method::GET, "/v1/hosts", false);
        check(Role::Ci, &Method::PUT, "/v1/manifests", true);
        check(Role::Operator, &Method::PUT, "/v1/manifests", false);
    }

    #[test]
    fn a_certificate_with_a_channel_limit_has_no_other_channels() {
        let [stable, edge] = ["stable", "edge"].map(|name| ChannelName::from(name.to_owned()));
        let mut identity = identity_of(Role::Operator);
        assert!(require_channel(&identity, &edge).is_ok());
        identity.channels = ChannelLimit::Only([stable.clone()].into());
        assert!(require_channel(&identity, &stable).is_ok());
        let refused = require_channel(&identity, &edge).unwrap_err();
        assert_eq!(refused.code(), "channel-not-allowed");
    }

    #[test]
    fn a_route_without_a_row_is_closed() {
        check(Role::Admin, &Method::GET, "/v1/other", false);
        check(Role::Admin, &Method::DELETE, "/v1/hosts", false);
    }
}
