//! Secrets stay where they are: in no log, no printed configuration, no error.

use std::collections::BTreeMap;
use std::path::Path;

use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::{Service, binaries, scratch, wait_for};

use super::super::gateways::gateway_process::{Gateway, SOON, event};
use super::EVENTS;

const PASSWORD: &str = "hunter2-database-password";
const OWNER: &str = "hunter3-owner-password";
const BUS: &str = "hunter4-bus-password";
const TOKEN: &str = "hunter5-bearer-token";
const SECRETS: [&str; 4] = [PASSWORD, OWNER, BUS, TOKEN];

#[track_caller]
fn holds_no_secret(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows {secret}:\n{text}");
    }
}

/// Runs a service that cannot work until it ends or has logged its troubles; gives all its output.
async fn output(
    service: Service,
    name: &str,
    args: &[&str],
    settings: &[(&str, String)],
) -> String {
    // Some give up, some go on trying: both say why, or get no further than this.
    let troubles = ["onnection refused", "health and metrics listener"];
    output_until(&troubles, service, name, args, settings).await
}

/// The same until it ends or says one of these.
async fn output_until(
    troubles: &[&str],
    service: Service,
    name: &str,
    args: &[&str],
    settings: &[(&str, String)],
) -> String {
    let dir = scratch::dir(&format!("secrets-{service}-{name}")).unwrap();
    let log = dir.join("log");
    let program = binaries::workspace_binary(&service.program()).unwrap();
    let mut spec = ProcessSpec::new(name, program, log.clone());
    spec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    spec.env = environment(service, &dir, settings);
    let mut process = Process::start(spec).unwrap();
    wait_for("the service tells its troubles", SOON, async || {
        let text = std::fs::read_to_string(&log)?;
        let told = troubles.iter().any(|words| text.contains(words));
        Ok((told || process.exit_status()?.is_some()).then_some(()))
    })
    .await
    .unwrap();
    process.stop(rustix::process::Signal::TERM, SOON).unwrap();
    std::fs::read_to_string(log).unwrap()
}

fn environment(
    service: Service,
    dir: &Path,
    settings: &[(&str, String)],
) -> BTreeMap<String, String> {
    let token = dir.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut all = vec![
        (
            "database.url",
            format!("postgres://nixfleet:{PASSWORD}@127.0.0.1:1/nixfleet"),
        ),
        ("bus.url", "nats://127.0.0.1:1".to_owned()),
        ("bus.connect_deadline_seconds", "1".to_owned()),
        ("admin.listen", "127.0.0.1:0".to_owned()),
        ("telemetry.log_filter", "trace".to_owned()),
    ];
    if service == Service::Applier {
        all.push((
            "database.owner_url",
            format!("postgres://owner:{OWNER}@127.0.0.1:1/nixfleet"),
        ));
    }
    if service == Service::Planner {
        all.push(("source.bearer_token_file", token.display().to_string()));
        all.push(("source.url", "http://127.0.0.1:1/release".to_owned()));
    }
    all.extend(settings.iter().cloned());
    all.into_iter()
        .map(|(key, value)| (service.variable(key), value))
        .collect()
}

#[tokio::test]
async fn no_service_prints_or_logs_a_secret() {
    for service in Service::ALL {
        let printed = output(service, "print", &["--print-config"], &[]).await;
        assert!(printed.contains("[redacted]"), "{service}: {printed}");
        holds_no_secret(&format!("{service} --print-config"), &printed);
        // Nothing it needs is there; it logs everything it can until it gives up.
        let failed = output(service, "start", &[], &[]).await;
        assert!(!failed.is_empty(), "{service} says nothing");
        holds_no_secret(&format!("the log of {service}"), &failed);
        // Values that cannot be used are named, not shown.
        let bus = format!("nats://nixfleet:{BUS}@127.0.0.1:1,nats://{TOKEN}@127.0.0.1:1");
        for (key, value, remedy) in [
            (
                "database.url",
                format!("postgres//nixfleet:{PASSWORD}@"),
                "",
            ),
            ("bus.url", bus, "set credentials_file"),
        ] {
            let refused = output(service, "unusable", &[], &[(key, value)]).await;
            assert!(refused.contains(remedy), "{service}: {refused}");
            holds_no_secret(&format!("the refusal of {service}"), &refused);
        }
    }
}

#[tokio::test]
async fn a_working_gateway_logs_neither_its_key_nor_what_clients_prove_themselves_with() {
    let trace = "telemetry.log_filter=trace";
    let gateway = Gateway::start("quietkeys", &[trace]).await;
    let issued = gateway.authority.client(
        "agent-web-1.fleet.test",
        None,
        super::super::gateways::test_authority::Validity::Now,
    );
    let agent = gateway.client_with(Some(&issued));
    assert_eq!(agent.post(EVENTS, &event("web-1", 1)).await.status, 204);
    let key = std::fs::read_to_string(gateway.dir.join("server-key.pem")).unwrap();
    let log = std::fs::read_to_string(gateway.dir.join("ingest.log")).unwrap();
    assert!(log.len() > 1_000, "the log is there");
    for pem in [&key, &issued.key] {
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        for line in lines.filter(|line| line.len() > 16) {
            assert!(!log.contains(line), "a line of a private key is in the log");
        }
    }
}

#[tokio::test]
async fn a_key_that_others_may_read_is_refused_without_showing_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = scratch::dir("openkey").unwrap();
    let key = dir.join("key.pem");
    std::fs::write(&key, format!("-----BEGIN PRIVATE KEY-----\n{TOKEN}\n")).unwrap();
    let settings = [("tls.key_file", key.display().to_string())];
    for (mode, says) in [(0o644, "has mode 644"), (0o600, "reading the key")] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let settings = [
            settings.as_slice(),
            &[("tls.cert_file", key.display().to_string())],
        ]
        .concat();
        let log = output_until(&[], Service::Ingest, "openkey", &[], &settings).await;
        let named = log.contains(says) || log.contains("reading certificates");
        assert!(named, "{log}");
        holds_no_secret("the refusal", &log);
    }
}
