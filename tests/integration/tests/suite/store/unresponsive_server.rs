//! A server that keeps its connections open without a response, such as a frozen one.

use nixfleet_harness::{Proxy, ProxyMode, shared_postgres};
use nixfleet_store::{DatabaseConfig, DbError, Store};
use tokio_postgres::config::Host;

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_server_is_reported_and_disconnected() {
    let postgres = shared_postgres().unwrap();
    let database = postgres.create_database("silent").await.unwrap();
    let server: tokio_postgres::Config = database.url.parse().unwrap();
    let Host::Tcp(host) = &server.get_hosts()[0] else {
        panic!("the server has no address");
    };
    let address = format!("{host}:{}", server.get_ports()[0]);
    let proxy = Proxy::start(address.parse().unwrap()).await.unwrap();
    let config = DatabaseConfig {
        url: proxy.proxied_url(&database.url),
        pool_size: 1,
        wait_timeout_ms: 1_000,
        ..DatabaseConfig::default()
    };
    let store = Store::connect(&config).unwrap();
    store.ping().await.unwrap();
    proxy.set(ProxyMode::Stalled);
    let silent = store.ping().await.unwrap_err();
    assert!(matches!(silent, DbError::Silent { .. }), "{silent:?}");
    assert!(silent.retryable());
    proxy.set(ProxyMode::Pass);
    store.ping().await.unwrap();
    store.close();
}
