//! Connections to a Postgres that requires TLS.

use std::path::PathBuf;
use std::time::Duration;

use nixfleet_bus::{Bus, BusConfig, SequenceFloors};
use nixfleet_harness::pki::Pki;
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::unique_prefix;
use nixfleet_harness::{
    Postgres, Service, binaries, monitoring, ports, scratch, shared_nats, wait_for,
};
use nixfleet_store::{DatabaseConfig, SslMode, Store};

fn config(url: String, sslmode: SslMode, ca_file: Option<PathBuf>) -> DatabaseConfig {
    DatabaseConfig {
        url,
        sslmode,
        ca_file,
        pool_size: 2,
        ..DatabaseConfig::default()
    }
}

async fn fault(config: &DatabaseConfig) -> String {
    let store = Store::connect(config).unwrap();
    format!("{:?}", store.ping().await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_verified_server_is_used() {
    let dir = scratch::dir("store_tls").unwrap();
    let pki = Pki::create(&dir.join("pki")).unwrap();
    let postgres = Postgres::start_with_tls("tls", &pki.server().unwrap()).unwrap();
    let database = postgres.create_database("tls").await.unwrap();
    let ca = Some(pki.authority().cert);
    let full = SslMode::VerifyFull;

    let good = config(database.url.clone(), full, ca.clone());
    Store::connect(&good).unwrap().migrate().await.unwrap();

    let clear = fault(&config(database.url.clone(), SslMode::Disable, None)).await;
    assert!(clear.contains("no encryption"), "{clear}");
    let other = Pki::create(&dir.join("other")).unwrap().authority().cert;
    let unknown = fault(&config(database.url.clone(), full, Some(other))).await;
    assert!(
        unknown.contains("UnknownIssuer") || unknown.contains("BadSignature"),
        "{unknown}"
    );
    // An address that the certificate does not name.
    let elsewhere = database.url.replace("127.0.0.1", "127.0.0.2");
    let misnamed = fault(&config(elsewhere, full, ca.clone())).await;
    assert!(misnamed.contains("NotValidForName"), "{misnamed}");

    a_service_works(&dir, &good, database.url_of(Service::Applier)).await;
}

/// The applier becomes ready over TLS: it migrates as the owner and reads as its own user.
async fn a_service_works(dir: &std::path::Path, owner: &DatabaseConfig, url: String) {
    let program = binaries::workspace_binary("nixfleet-applier").unwrap();
    let prefix = unique_prefix("store_tls");
    let bus = BusConfig {
        url: shared_nats().unwrap().url(),
        prefix: prefix.clone(),
        partitions: 1,
        ..BusConfig::default()
    };
    // There is no planner, which would create the streams.
    let bus = Bus::connect(bus, "test/store").await.unwrap();
    bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
    bus.close().await;
    let mut spec = ProcessSpec::new("applier", program, dir.join("applier.log"));
    let admin = ports::free().unwrap();
    let ca = owner.ca_file.clone().unwrap().display().to_string();
    for (key, value) in [
        ("BUS__URL", shared_nats().unwrap().url()),
        ("BUS__PREFIX", prefix),
        ("BUS__PARTITIONS", "1".to_owned()),
        ("DATABASE__URL", url),
        ("DATABASE__OWNER_URL", owner.url.clone()),
        ("DATABASE__SSLMODE", "verify-full".to_owned()),
        ("DATABASE__CA_FILE", ca),
        ("ADMIN__LISTEN", format!("127.0.0.1:{admin}")),
    ] {
        spec.env.insert(Service::Applier.variable("") + key, value);
    }
    let applier = Process::start(spec).unwrap();
    let ready = wait_for(
        "the applier ready over TLS",
        Duration::from_secs(60),
        async || {
            let answer = monitoring::get(admin, "/readyz")?;
            Ok((answer.status == 200).then_some(()))
        },
    );
    ready
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", applier.tail()));
}
