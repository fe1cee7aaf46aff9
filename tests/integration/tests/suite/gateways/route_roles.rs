//! Every route with every role, on the right and on the wrong gateway, against docs/roles.md.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::gateway_process::{Client, Gateway};

const ROLES: [&str; 6] = ["agent", "viewer", "operator", "approver", "admin", "ci"];

/// A route of the documentation.
struct Route {
    method: Method,
    path: String,
    roles: BTreeSet<String>,
}

/// The table below a heading of docs/roles.md, parameters filled in.
fn documented(heading: &str) -> Vec<Route> {
    let docs = include_str!("../../../../../docs/roles.md");
    let section = docs
        .split("\n## ")
        .find(|section| section.starts_with(heading));
    let rows = section.expect("the section is there").lines();
    let routes: Vec<Route> = rows
        .filter_map(|row| row.strip_prefix("| `"))
        .map(|row| {
            let (route, roles) = row.split_once("` | ").expect("two columns");
            let (method, path) = route.split_once(' ').expect("a method and a path");
            let path = path
                .replace("{id}", "stable@4f1c")
                .replace("{name}", "stable")
                .replace("{channel}", "stable")
                .replace("{hostname}", "web-1")
                .replace("{closure}", "abc-nixos?reason=x");
            let path = match path.ends_with("/dispatch") {
                true => path + "?wait=0",
                false => path,
            };
            let roles = roles.trim_end_matches(['|', ' ']).split(' ');
            Route {
                method: method.parse().expect("a method"),
                path,
                roles: roles.map(str::to_owned).collect(),
            }
        })
        .collect();
    assert!(routes.len() >= 7, "{heading}");
    routes
}

/// A client of the gateway's own authority.
fn client(gateway: &Gateway, role: &str) -> Client {
    match role {
        "agent" => gateway.agent("web-1"),
        person => gateway.person("ada", person),
    }
}

/// Asks every route as every role, with certificates of the gateway's own authority.
async fn walk(gateway: &Gateway, routes: &[Route]) {
    let denied = (403, "role-not-allowed".to_owned());
    for role in ROLES {
        let client = client(gateway, role);
        for Route {
            method,
            path,
            roles,
        } in routes
        {
            let request = client.request(method.clone(), path).json(&json!({}));
            let answer = client.send(request).await;
            let case = format!("{role} {method} {path}: {}", answer.status);
            if roles.contains(role) {
                // Allowed: what it gets then is not about roles.
                assert!(![401, 403, 405].contains(&answer.status), "{case}");
            } else {
                assert_eq!(answer.refusal(), denied, "{case}");
            }
        }
    }
}

/// Asks every route of one gateway with a certificate that is good for the other.
async fn walk_with_foreign(gateway: &Gateway, other: &Gateway, routes: &[Route]) {
    for role in ROLES {
        let issued = other.issued(role);
        let client = gateway.client_with(Some(&issued));
        for Route { method, path, .. } in routes {
            let sent = client.request(method.clone(), path).send().await;
            let error = sent.expect_err("the handshake fails");
            assert!(
                error.is_connect() || error.is_request(),
                "{role} {path}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn every_route_of_both_gateways_takes_its_roles_and_no_others() {
    let ingest = Gateway::start("everyroute", &[]).await;
    let console = ingest.other(&[]).await;
    let of_ingest = documented("Routes of `ingest`");
    let of_console = documented("Routes of `console`");
    walk(&ingest, &of_ingest).await;
    walk_with_foreign(&ingest, &console, &of_ingest).await;
    assert_eq!(ingest.logged().await, Vec::new());
    walk(&console, &of_console).await;
    walk_with_foreign(&console, &ingest, &of_console).await;
    for (gateway, routes) in [(&ingest, &of_console), (&console, &of_ingest)] {
        let known: BTreeSet<&str> = match gateway.is_console() {
            true => of_console.iter().map(|route| &*route.path).collect(),
            false => of_ingest.iter().map(|route| &*route.path).collect(),
        };
        let role = if gateway.is_console() {
            "admin"
        } else {
            "agent"
        };
        let client = client(gateway, role);
        for route in routes.iter().filter(|route| !known.contains(&*route.path)) {
            let answer = client.get(&route.path).await;
            let refused = [404, 405].contains(&answer.status);
            assert!(refused, "{} serves {}", role, route.path);
        }
    }
}

#[tokio::test]
async fn a_unit_that_is_no_role_gives_no_rights() {
    let console = Gateway::start_console("oddunit", &[]).await;
    let denied = (403, "role-not-allowed".to_owned());
    // A misspelt role could be overlooked.
    let unusable = (401, "client-certificate-unusable".to_owned());
    for (unit, refusal) in [
        ("operator", &denied),
        ("nixfleet-operators", &unusable),
        ("nixfleet-", &unusable),
        ("nixfleet-agent", &unusable),
    ] {
        let odd = console.client("ada", Some(unit));
        assert_eq!(odd.get("/v1/status").await.refusal(), *refusal, "{unit}");
    }
}
