//! `docker-compose.yml` held against what the binaries themselves understand.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use nixfleet_harness::binaries;
use serde_yaml_ng::Value;

const SERVICES: [&str; 6] = [
    "ingest", "console", "reducer", "planner", "applier", "eventlog",
];
const GATEWAYS: [&str; 2] = ["ingest", "console"];

fn compose() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker-compose.yml");
    let text = std::fs::read_to_string(path).expect("docker-compose.yml is at the top");
    let mut compose: Value = serde_yaml_ng::from_str(&text).expect("docker-compose.yml is YAML");
    compose.apply_merge().expect("its merge keys are maps");
    compose
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value:?} is no text"))
}

fn texts(value: &Value) -> Vec<String> {
    let items = value
        .as_sequence()
        .unwrap_or_else(|| panic!("{value:?} is no list"));
    items.iter().map(|item| text(item).to_owned()).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    let map = value
        .as_mapping()
        .unwrap_or_else(|| panic!("{value:?} is no map"));
    map.keys().map(|key| text(key).to_owned()).collect()
}

/// The effective configuration of a binary in its compose environment.
fn printed_config(service: &str, environment: &Value) -> toml::Table {
    let program = format!("nixfleet-{service}");
    let mut command =
        Command::new(binaries::workspace_binary(&program).expect("the services are built"));
    command.env_clear().arg("--print-config");
    for (key, value) in environment.as_mapping().expect("environment is a map") {
        command.env(text(key), text(value));
    }
    let output = command.output().expect("the binary starts");
    let (out, err) = (
        output.stdout,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{program}: {err}");
    let out = String::from_utf8(out).expect("configuration is text");
    out.parse()
        .unwrap_or_else(|fault| panic!("{program}: {fault} in\n{out}"))
}

/// A dotted key of a configuration, as text.
fn key<'a>(config: &'a toml::Table, path: &str) -> &'a str {
    let mut parts = path.split('.');
    let first = parts.next().expect("a path has a part");
    let value = parts.try_fold(&config[first], |value, part| value.get(part));
    value
        .and_then(toml::Value::as_str)
        .unwrap_or_else(|| panic!("no {path} in {config:?}"))
}

#[test]
fn it_runs_nats_postgres_and_every_service() {
    let expected = SERVICES.iter().copied().chain(["nats", "postgres"]);
    let expected: BTreeSet<String> = expected.map(str::to_owned).collect();
    assert_eq!(keys(&compose()["services"]), expected);
}

#[test]
fn every_variable_is_one_the_binary_knows_and_takes_effect() {
    let compose = compose();
    for service in SERVICES {
        let description = &compose["services"][service];
        assert_eq!(
            texts(&description["command"]),
            [format!("nixfleet-{service}")]
        );
        let environment = &description["environment"];
        // An unknown key is an error, so printing proves that each variable is known.
        let config = printed_config(service, environment);
        let prefix = format!("NIXFLEET_{}__", service.to_ascii_uppercase());
        for (name, value) in environment.as_mapping().expect("environment is a map") {
            let path = text(name)
                .strip_prefix(&prefix)
                .expect("variables carry their service");
            let path = path.to_ascii_lowercase().replace("__", ".");
            assert_eq!(key(&config, &path), text(value), "{path}");
        }
        assert_eq!(key(&config, "bus.url"), "nats://nats:4222");
    }
}

#[test]
fn each_service_is_its_own_user_of_the_database() {
    let compose = compose();
    let of_postgres = texts(&compose["services"]["postgres"]["secrets"]);
    for service in SERVICES {
        let config = printed_config(service, &compose["services"][service]["environment"]);
        let user = format!("database_{service}");
        assert_eq!(
            key(&config, "database.url_file"),
            format!("/run/secrets/{user}")
        );
        assert!(
            of_postgres.contains(&user),
            "nobody makes the user of {service}"
        );
        let owns = config["database"].get("owner_url_file").is_some();
        assert_eq!(owns, service == "applier", "only the applier migrates");
    }
}

#[test]
fn published_ports_and_health_checks_are_those_the_binary_listens_on() {
    let compose = compose();
    for service in SERVICES {
        let description = &compose["services"][service];
        let config = printed_config(service, &description["environment"]);
        let default = printed_config(service, &Value::Mapping(Default::default()));
        let mut listens = vec!["admin.listen"];
        listens.extend(GATEWAYS.contains(&service).then_some("http.listen"));
        let mut ports: BTreeSet<&str> = BTreeSet::new();
        for listen in listens {
            let (address, port) = key(&config, listen).rsplit_once(':').expect("address:port");
            assert_eq!(address, "0.0.0.0", "{service} {listen}");
            let (default_address, default) = key(&default, listen)
                .rsplit_once(':')
                .expect("address:port");
            let is_local = default_address == "127.0.0.1";
            assert_eq!(is_local, listen == "admin.listen", "{service} {listen}");
            assert_eq!(
                port, default,
                "{service} {listen} is not the documented port"
            );
            ports.insert(port);
        }
        let published = texts(&description["ports"]);
        let inside = published.iter().filter_map(|port| port.rsplit(':').next());
        assert_eq!(inside.collect::<BTreeSet<_>>(), ports, "{service}");

        let check = texts(&description["healthcheck"]["test"]).join(" ");
        let admin = key(&config, "admin.listen")
            .rsplit(':')
            .next()
            .expect("address:port");
        let health = ["healthz", "readyz"].map(|path| format!("http://127.0.0.1:{admin}/{path}"));
        assert!(
            health.iter().any(|url| check.ends_with(url)),
            "{service}: {check}"
        );
    }
}

#[test]
fn services_wait_for_what_they_need() {
    let compose = compose();
    for service in SERVICES {
        let waits = &compose["services"][service]["depends_on"];
        let mut needed = vec!["nats", "postgres"];
        needed.extend((service != "applier").then_some("applier"));
        assert_eq!(
            keys(waits),
            needed.iter().map(|name| (*name).to_owned()).collect()
        );
        for name in needed {
            // The applier is healthy once the streams are there, which the planner creates.
            let condition = match (service, name) {
                ("planner", "applier") => "service_started",
                _ => "service_healthy",
            };
            let found = text(&waits[name]["condition"]);
            assert_eq!(found, condition, "{service} {name}");
            let check = &compose["services"][name]["healthcheck"]["test"];
            assert!(!texts(check).is_empty(), "{name} has no health check");
        }
    }
}

#[test]
fn files_and_secrets_named_inside_are_mounted() {
    let compose = compose();
    let declared = keys(&compose["secrets"]);
    for service in SERVICES {
        let description = &compose["services"][service];
        let empty = Vec::new();
        let secrets = description["secrets"].as_sequence().unwrap_or(&empty);
        let secrets: BTreeSet<&str> = secrets
            .iter()
            .map(|secret| secret.as_str().unwrap_or_else(|| text(&secret["source"])))
            .collect();
        assert!(
            secrets.iter().all(|secret| declared.contains(*secret)),
            "{service}"
        );
        let volumes = description["volumes"].as_sequence().unwrap_or(&empty);
        let mounts: Vec<String> = volumes
            .iter()
            .filter_map(|volume| text(volume).split(':').nth(1).map(str::to_owned))
            .collect();
        for (name, value) in description["environment"].as_mapping().expect("a map") {
            let (name, value) = (text(name), text(value));
            if let Some(secret) = value.strip_prefix("/run/secrets/") {
                assert!(secrets.contains(secret), "{service}: {name} is not mounted");
            } else if value.starts_with('/') {
                let is_mounted = mounts.iter().any(|mount| value.starts_with(mount.as_str()));
                assert!(is_mounted, "{service}: {name}={value} is not mounted");
            }
        }
    }
}
