//! One process of a gateway, `ingest` or `console`, with everything around it, and clients for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig, Message};
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::unique_prefix;
use nixfleet_harness::{
    Database, Service, binaries, console_key, ports, scratch, shared_nats, test_namespace, wait_for,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, Entry};
use nixfleet_store::{DatabaseConfig, Store};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, KeySlot, TrustFile};
use serde_json::{Value, json};

use super::test_authority::{Authority, Issued, Validity};

/// Patience of everything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);
/// A path that is answered 404 to every agent, without waiting.
pub const UNKNOWN_ROLLOUT: &str = "/v1/rollouts/none";
/// Partitions of the fleet.
pub const PARTITIONS: u16 = 2;

/// A running gateway.
pub struct Gateway {
    pub process: Process,
    pub authority: Authority,
    pub bus: Bus,
    pub dir: PathBuf,
    pub(super) service: Service,
    pub(super) database: Database,
    pub(super) key: SigningKey,
    port: u16,
    admin: u16,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// Status and code of a refusal, whose body has the documented shape.
    pub fn refusal(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        assert_eq!(body["detail"], body["message"], "{body}");
        for member in ["type", "title", "instance"] {
            assert!(body[member].is_string(), "{member}: {body}");
        }
        assert!(body["message"].is_string(), "{body}");
        assert!(body["retryable"].is_boolean(), "{body}");
        let code = body["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code in {body}"));
        (self.status, code.to_owned())
    }
}

impl Gateway {
    /// Starts `ingest` with further `--set` flags and the release `4f1c`, whose hosts may report.
    pub async fn start(name: &str, set: &[&str]) -> Self {
        let gateway = Self::start_without_release(name, set).await;
        gateway.publish("4f1c").await;
        gateway
    }

    /// Starts `ingest` with further `--set` flags.
    pub async fn start_without_release(name: &str, set: &[&str]) -> Self {
        let database = test_namespace(name).await.unwrap().database;
        Self::start_on(Service::Ingest, database, name, set).await
    }

    /// Starts `console` with further `--set` flags.
    pub async fn start_console(name: &str, set: &[&str]) -> Self {
        let database = test_namespace(name).await.unwrap().database;
        Self::start_on(Service::Console, database, name, set).await
    }

    /// Starts one on this database.
    pub async fn start_on(service: Service, database: Database, name: &str, set: &[&str]) -> Self {
        let store = DatabaseConfig {
            url: database.url.clone(),
            ..DatabaseConfig::default()
        };
        Store::connect(&store).unwrap().migrate().await.unwrap();
        Self::launch(service, database, unique_prefix(name), set).await
    }

    /// The other gateway, on the same bus and database.
    pub async fn other(&self, set: &[&str]) -> Self {
        let service = if self.is_console() {
            Service::Ingest
        } else {
            Service::Console
        };
        let prefix = self.bus.names().prefix().to_owned();
        Self::launch(service, self.database.clone(), prefix, set).await
    }

    async fn launch(service: Service, database: Database, prefix: String, set: &[&str]) -> Self {
        // The process of the tests talks TLS too; another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nats_url = shared_nats().unwrap().url();
        let dir = scratch::dir(&format!("{service}-{prefix}")).unwrap();
        let authority = Authority::new(&format!("authority of {service}"));
        let key = SigningKey::from_secret(Algorithm::Ed25519, &[7; 32]).unwrap();
        write_files(&dir, &authority, &key);
        let (port, admin) = (ports::free().unwrap(), ports::free().unwrap());
        let mut settings = vec![
            format!("http.listen=\"127.0.0.1:{port}\""),
            format!("admin.listen=\"127.0.0.1:{admin}\""),
            format!("tls.cert_file={}", dir.join("server.pem").display()),
            format!("tls.key_file={}", dir.join("server-key.pem").display()),
            format!("tls.client_ca_file={}", dir.join("ca.pem").display()),
            format!("trust.trust_file={}", dir.join("trust.json").display()),
            format!("bus.url={nats_url}"),
            format!("bus.prefix={prefix}"),
            format!("bus.partitions={PARTITIONS}"),
            format!("bus.input_max_bytes={}", input_max_bytes(set)),
            "bus.output_max_bytes=67108864".to_owned(),
            "bus.dead_max_bytes=2097152".to_owned(),
            format!("telemetry.log_filter=info,nixfleet_{service}=debug,nixfleet_http=debug"),
        ];
        if service == Service::Console {
            let key = console_key::write(&dir).unwrap();
            settings.push(format!("operators.key_file={}", key.display()));
        }
        settings.extend(
            set.iter()
                .map(|pair| pair.replace("{dir}", &dir.display().to_string())),
        );
        let bus = create_streams(nats_url, prefix, input_max_bytes(set), &database).await;
        let mut spec = ProcessSpec::new(
            service.name(),
            binaries::workspace_binary(&service.program()).unwrap(),
            dir.join(format!("{service}.log")),
        );
        spec.args = settings
            .into_iter()
            .flat_map(|pair| ["--set".to_owned(), pair])
            .collect();
        let url = database.url_of(service);
        spec.env = BTreeMap::from([(service.variable("database.url"), url)]);
        let process = Process::start(spec).unwrap();
        let mut gateway = Self {
            process,
            authority,
            bus,
            dir,
            service,
            database,
            key,
            port,
            admin,
        };
        gateway.wait_until_up().await;
        gateway
    }

    /// Every part but those that a test brings first: release and revocations.
    async fn wait_until_up(&mut self) {
        let up = wait_for("the gateway is up", SOON, async || {
            let ready = self.ready().await?;
            let parts = &ready["components"];
            let mut parts = parts.as_object().into_iter().flatten();
            let up = parts.all(|(name, part)| {
                ["release", "revocations"].contains(&&**name) || part["ready"] == true
            });
            Ok(up.then_some(()))
        });
        if let Err(error) = up.await {
            panic!("{error:#}\n{}", self.process.tail());
        }
    }

    /// Ends the process and starts it again with the same settings.
    pub async fn restart(&mut self) {
        let status = self
            .process
            .stop(rustix::process::Signal::TERM, SOON)
            .unwrap();
        assert!(status.success(), "{status}\n{}", self.process.tail());
        self.process = Process::start(self.process.spec().clone()).unwrap();
        self.wait_until_up().await;
    }

    /// What `/readyz` says.
    pub async fn ready(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.admin("/readyz").await?)?)
    }

    /// What the admin listener says, soon.
    async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}{path}", self.admin);
        let said = async { reqwest::get(url).await?.text().await };
        Ok(tokio::time::timeout(SOON, said).await??)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Resident memory of the process, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory that the process ever had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.unwrap().split_whitespace().nth(1);
        kib.unwrap().parse().unwrap()
    }

    /// The value of a metric line that begins with `name`; 0 when there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
            .sum()
    }

    /// Waits until so many polls wait for a dispatch.
    pub async fn wait_for_polls(&self, count: usize, patience: Duration) {
        wait_for("the polls wait", patience, async || {
            let open = self.metric("nixfleet_dispatch_polls_open").await;
            Ok((open >= count as f64).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until so many open rollouts are known.
    pub async fn wait_until_known(&self, count: usize) {
        wait_for("the rollouts are known", SOON, async || {
            let mut known = 0.0;
            for partition in Partition::all(PARTITIONS) {
                let name = format!("nixfleet_known_rollouts{{partition=\"{partition}\"}}");
                known += self.metric(&name).await;
            }
            Ok((known == count as f64).then_some(()))
        })
        .await
        .unwrap();
    }

    /// How often a hostile input of this kind was counted.
    pub async fn hostile(&self, kind: &str) -> f64 {
        let name = format!("nixfleet_hostile_input_total{{kind=\"{kind}\"}}");
        self.metric(&name).await
    }

    /// A client of the gateway's own authority.
    pub fn client(&self, name: &str, unit: Option<&str>) -> Client {
        let issued = self.authority.client(name, unit, Validity::Now);
        self.client_with(Some(&issued))
    }

    pub fn agent(&self, host: &str) -> Client {
        self.client(&format!("agent-{host}.fleet.test"), None)
    }

    pub fn operator(&self) -> Client {
        self.person("ada", "operator")
    }

    /// A person or pipeline of this role.
    pub fn person(&self, name: &str, role: &str) -> Client {
        self.client(name, Some(&format!("nixfleet-{role}")))
    }

    /// A person of this role for some channels alone.
    pub fn person_of(&self, role: &str, channels: &[&str]) -> Client {
        let unit = format!("nixfleet-{role}");
        let uris = channels
            .iter()
            .map(|channel| format!("urn:nixfleet:channel:{channel}"));
        let issued = self.authority.limited("ada", &unit, uris);
        self.client_with(Some(&issued))
    }

    /// A certificate of the gateway's authority for this role.
    pub fn issued(&self, role: &str) -> Issued {
        let unit = (role != "agent").then(|| format!("nixfleet-{role}"));
        self.authority
            .client("web-1", unit.as_deref(), Validity::Now)
    }

    /// True for the gateway of people.
    pub fn is_console(&self) -> bool {
        self.service == Service::Console
    }

    /// A client with this certificate, or with none.
    pub fn client_with(&self, issued: Option<&Issued>) -> Client {
        let root = reqwest::Certificate::from_pem(self.authority.pem.as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([root])
            .timeout(SOON);
        if let Some(Issued { cert, key }) = issued {
            let pem = format!("{cert}{key}");
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        Client {
            http: builder.build().unwrap(),
            base: format!("https://localhost:{}", self.port),
        }
    }

    /// Signs a document with the release key.
    pub fn sign(&self, document: &Value) -> (Vec<u8>, Vec<u8>) {
        let (bytes, signature) = self.key.sign_json(document.to_string().as_bytes()).unwrap();
        (bytes, signature.to_vec())
    }

    /// Puts a signed list of revocations where the gateway's configuration of these tests names it.
    pub fn revoke(&self, revocations: Value, signed_at: nixfleet_proto::Timestamp) {
        let (bytes, signature) = self.sign(&json!({
            "schemaVersion": 1,
            "revocations": revocations,
            "meta": { "schemaVersion": 1, "signedAt": signed_at, "ciCommit": null },
        }));
        std::fs::write(self.dir.join("revocations.json.sig"), signature).unwrap();
        std::fs::write(self.dir.join("revocations.json"), bytes).unwrap();
    }

    /// The partition of a channel.
    pub fn partition(channel: &str) -> Partition {
        Partition::of(&ChannelName::from(channel), PARTITIONS)
    }

    /// Everything in the input logs.
    pub async fn logged(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for partition in Partition::all(PARTITIONS) {
            for message in self.input_messages(partition).await {
                entries.extend(nixfleet_bus::decode_input(&message).unwrap().entries);
            }
        }
        entries
    }

    async fn input_messages(&self, partition: Partition) -> Vec<Message> {
        let stream = self.bus.names().input_stream(partition);
        let identity = self.bus.stream_identity(&stream).await.unwrap();
        let mut messages = Vec::new();
        for seq in identity.first_seq..=identity.last_seq {
            messages.extend(self.bus.message_at(&stream, seq).await.unwrap());
        }
        messages
    }
}

/// A client with one certificate.
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(reqwest::Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(reqwest::Method::POST, path).json(body))
            .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(reqwest::Method::PUT, path).json(body))
            .await
    }

    /// A request to be completed by the test.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            bytes: response.bytes().await.unwrap().to_vec(),
        }
    }

    /// The failure of a request that must not even get an answer.
    pub async fn refused(&self, path: &str) -> String {
        let sent = self.request(reqwest::Method::GET, path).send().await;
        let error = sent.expect_err("the handshake must fail");
        format!("{:#}", anyhow::Error::new(error))
    }
}

/// An event of `host` in the rollout of its channel, of the release `4f1c`.
pub fn event(host: &str, seq: u64) -> Value {
    let channel = if host == "lab-1" { "edge" } else { "stable" };
    json!({
        "hostname": host,
        "rolloutId": format!("{channel}@4f1c"),
        "event": {
            "kind": "DispatchAck", "seq": seq,
            "currentClosureAtDispatch": "old", "receivedAt": Utc::now(),
        },
    })
}

/// Two channels, one host each.
pub fn fleet() -> Value {
    let host = |channel: &str, closure: &str| {
        json!({ "system": "x86_64-linux", "tags": [], "channel": channel, "closureHash": closure,
                "pubkey": null })
    };
    let channel = json!({ "rolloutPolicy": "all", "reconcileIntervalMinutes": 30,
                          "freshnessWindow": 1440, "signingIntervalMinutes": 30 });
    json!({
        "schemaVersion": 1,
        "hosts": { "web-1": host("stable", "new-web-1"), "lab-1": host("edge", "new-lab-1") },
        "channels": { "stable": channel, "edge": channel },
        "rolloutPolicies": { "all": { "strategy": "all-at-once", "onHealthFailure": "halt" } },
    })
}

/// Creates the streams behind what the tables cover, as the planner does, who is not there.
async fn create_streams(
    url: String,
    prefix: String,
    input_max_bytes: u64,
    database: &Database,
) -> Bus {
    let config = BusConfig {
        url,
        prefix,
        partitions: PARTITIONS,
        input_max_bytes,
        output_max_bytes: 67_108_864,
        dead_max_bytes: 2_097_152,
        ..BusConfig::default()
    };
    let bus = Bus::connect(config, "test/gateway").await.unwrap();
    let store = DatabaseConfig {
        url: database.url.clone(),
        ..DatabaseConfig::default()
    };
    let store = Store::connect(&store).unwrap();
    let covered = store.read_covered_sequences(bus.names())().await.unwrap();
    let floors = covered.into_iter().collect();
    bus.ensure_layout(&floors).await.unwrap();
    bus
}

/// The size of input logs in these `--set` flags, or 64 MiB.
fn input_max_bytes(set: &[&str]) -> u64 {
    let mut set = set.iter();
    let set = set.find_map(|pair| pair.strip_prefix("bus.input_max_bytes="));
    set.map_or(67_108_864, |bytes| bytes.parse().unwrap())
}

fn write_files(dir: &std::path::Path, authority: &Authority, key: &SigningKey) {
    use std::os::unix::fs::PermissionsExt as _;
    let server = authority.server();
    let trust = TrustFile {
        schema_version: 1,
        ci_release_key: KeySlot {
            current: Some(key.public()),
            ..KeySlot::default()
        },
        cache_keys: Vec::new(),
        org_root_key: None,
        root_ca_pem: None,
        issuance_ca_pems: Vec::new(),
    };
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("ca.pem", &authority.pem);
    write("server.pem", &server.cert);
    write("server-key.pem", &server.key);
    write("trust.json", &serde_json::to_string(&trust).unwrap());
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(dir.join("server-key.pem"), private).unwrap();
}
