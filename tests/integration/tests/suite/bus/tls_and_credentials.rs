//! Mutual TLS, and users with credentials.

use nixfleet_bus::{Bus, BusConfig, ConnectError};
use nixfleet_harness::Nats;
use nixfleet_harness::nats::Authentication;

use super::{config, entry, p0, read, ready};

fn user(nats: &Nats, secured: &Authentication) -> BusConfig {
    let client = secured.client("reducer").unwrap();
    BusConfig {
        credentials_file: Some(secured.user("reducer").unwrap()),
        ca_file: Some(secured.authority()),
        cert_file: Some(client.cert),
        key_file: Some(client.key),
        connect_deadline_seconds: 1,
        ..config(&nats.url(), "fleet")
    }
}

#[tokio::test]
async fn only_a_user_with_certificate_and_credentials_is_accepted() {
    let secured = Authentication::create("bus").unwrap();
    let nats = Nats::start_with("secured", &secured.settings()).unwrap();
    let known = user(&nats, &secured);
    let bus = ready(known.clone()).await;
    let input = bus.input();
    let appended = input.append(p0(), entry("stable@aa", "web-01", 1));
    assert_eq!(appended.await.unwrap().seq, 1);
    let mut reader = bus.reader(&bus.names().input_stream(p0()), 1);
    assert_eq!(read(&mut reader, 1).await.len(), 1);

    let stranger = Authentication::create("stranger").unwrap();
    let foreign = stranger.client("reducer").unwrap();
    let refused = [
        ("no credentials", {
            let credentials_file = None;
            BusConfig {
                credentials_file,
                ..known.clone()
            }
        }),
        ("a user of another account", {
            let credentials_file = Some(stranger.user("reducer").unwrap());
            BusConfig {
                credentials_file,
                ..known.clone()
            }
        }),
        ("no certificate", {
            let (cert_file, key_file) = (None, None);
            BusConfig {
                cert_file,
                key_file,
                ..known.clone()
            }
        }),
        ("a certificate of another authority", {
            let (cert_file, key_file) = (Some(foreign.cert), Some(foreign.key));
            BusConfig {
                cert_file,
                key_file,
                ..known.clone()
            }
        }),
        ("a server of another authority", {
            let ca_file = Some(stranger.authority());
            BusConfig {
                ca_file,
                ..known.clone()
            }
        }),
    ];
    for (what, config) in refused {
        let Err(error) = Bus::connect(config, "test/stranger").await else {
            panic!("{what} was accepted");
        };
        assert!(
            matches!(error, ConnectError::Unreachable { .. }),
            "{what}: {error:?}"
        );
    }
    bus.close().await;
}
