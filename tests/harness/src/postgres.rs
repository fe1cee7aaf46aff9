//! A Postgres server of our own.

mod cluster_setup;
mod unprivileged_user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postgres::{Client, NoTls};
use rustix::process::Signal;

use unprivileged_user::{check_reachable, unprivileged};

use crate::binaries::ServerBinaries;
use crate::pki::Pair;
use crate::process::{Process, ProcessSpec};
use crate::service::Service;
use crate::wait::{POLL, wait_blocking};
use crate::watchdog::StopSignal;
use crate::{ports, scratch};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Statements wait for the locks of running services.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const PORT_ATTEMPTS: u32 = 5;

/// Password of the superuser; the server listens on the loopback address only and does not outlive this
/// process.
const PASSWORD: &str = "nixfleet-development";

/// Owner of the databases; not a superuser, as in production.
const OWNER: &str = "nixfleet_owner";

/// A Postgres server with an empty cluster, the owner of all databases and a user per service.
#[derive(Debug)]
pub struct Postgres {
    servers: ServerBinaries,
    dir: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    tls: bool,
    durable: bool,
    has_users: bool,
    process: Option<Process>,
}

/// A database on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Name of the database.
    pub name: String,
    /// `postgres://…` of its owner, with password.
    pub url: String,
}

impl Database {
    /// The URL of this database with the user of a service.
    pub fn url_of(&self, service: Service) -> String {
        url_of(&self.url, service)
    }
}

/// The URL of a database as the user of a service; one that is not from this harness stays as it is.
pub fn url_of(url: &str, service: Service) -> String {
    let owner = format!("//{OWNER}:");
    url.replacen(&owner, &format!("//nixfleet_{service}:"), 1)
}

impl Postgres {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When the binaries are missing, cannot be reached by the unprivileged user, or do not start.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_cluster(name, (None, false))
    }

    /// Starts a server with this certificate that accepts unencrypted connections of its superuser only.
    ///
    /// # Errors
    /// As [`Postgres::start`], and when the certificate cannot be read.
    pub fn start_with_tls(name: &str, certificate: &Pair) -> Result<Self> {
        Self::start_cluster(name, (Some(certificate), false))
    }

    /// Starts a server with durable commits and the memory settings of a small server, for benchmarks.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_durable(name: &str) -> Result<Self> {
        Self::start_cluster(name, (None, true))
    }

    fn start_cluster(name: &str, (certificate, durable): (Option<&Pair>, bool)) -> Result<Self> {
        let servers = ServerBinaries::find()?;
        let user = unprivileged()?;
        if user.is_some() {
            check_reachable(&servers.postgres_bin.join("postgres"))?;
        }
        let dir = scratch::dir(&format!("postgres-{name}"))?;
        let mut postgres = Self {
            servers,
            dir,
            port: 0,
            user,
            tls: certificate.is_some(),
            durable,
            has_users: false,
            process: None,
        };
        postgres.init_cluster()?;
        if let Some(certificate) = certificate {
            postgres.install(certificate)?;
        }
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS {
            postgres.port = ports::free()?;
            match postgres.launch() {
                Ok(()) => return Ok(postgres),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .expect("at least one attempt was made")
            .context("Postgres did not start"))
    }

    /// Starts a stopped server on the same port and cluster. After [`Self::kill`] orphaned child processes
    /// hold the shared memory for a while, and a new server cannot start until they exit.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.launch() {
                Err(error) if start.elapsed() < START_TIMEOUT => {
                    drop(error);
                    std::thread::sleep(POLL);
                }
                launched => return launched,
            }
        }
    }

    fn launch(&mut self) -> Result<()> {
        self.kill()?;
        let mut spec = ProcessSpec::new(
            "postgres",
            self.servers.postgres_bin.join("postgres"),
            self.dir.join("postgres.log"),
        );
        spec.args = self.arguments();
        spec.env = self.servers.postgres_env();
        spec.dir = Some(self.dir.clone());
        spec.user = self.user;
        spec.stop_signal = StopSignal::Quit;
        let mut process = Process::start(spec)?;
        let expected = (process.pid().to_string(), self.port.to_string());
        let pid_file = self.data().join("postmaster.pid");
        wait_blocking("Postgres ready", START_TIMEOUT, || {
            process.check_alive()?;
            Ok(is_ready(&pid_file, &expected).then_some(()))
        })?;
        self.process = Some(process);
        if !self.has_users {
            self.create_users()?;
            self.has_users = true;
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// URL of a database on it, as its owner.
    pub fn url(&self, database: &str) -> String {
        self.url_as(OWNER, database)
    }

    /// URL of a database on it, as the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    fn url_as(&self, user: &str, database: &str) -> String {
        format!(
            "postgres://{user}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// A new empty database whose name starts with `name`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_database(&self, name: &str) -> Result<Database> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let clean: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .take(40)
            .collect();
        let name = format!("{clean}_{number}").to_ascii_lowercase();
        let create = format!("CREATE DATABASE {name} OWNER {OWNER}");
        execute(&self.superuser_url("postgres"), &create).await?;
        Ok(Database {
            url: self.url(&name),
            name,
        })
    }

    /// Throws all databases away and makes an empty cluster with the same users; only while stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be replaced.
    pub fn erase(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "Postgres still runs");
        let data = self.data();
        std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        self.has_users = false;
        self.init_cluster()
    }

    /// Copies the whole cluster; only while stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn back_up(&self) -> Result<()> {
        ensure!(self.process.is_none(), "Postgres still runs");
        scratch::copy(&self.data(), &self.dir.join("backup"))
    }

    /// Replaces the cluster with the copy; the server must be stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn restore(&self) -> Result<()> {
        ensure!(self.process.is_none(), "Postgres still runs");
        scratch::copy(&self.dir.join("backup"), &self.data())
    }

    /// Creates a dropped database again, empty.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_again(&self, database: &Database) -> Result<()> {
        let create = format!("CREATE DATABASE {} OWNER {OWNER}", database.name);
        execute(&self.superuser_url("postgres"), &create).await
    }

    /// `kill -9` of the postmaster; its children notice and end.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Immediate shutdown: disconnects clients without a checkpoint; the next start recovers from the log.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn quit(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::QUIT, STOP_TIMEOUT)?;
        }
        Ok(())
    }

    /// Fast shutdown: disconnects clients and writes a checkpoint.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::INT, STOP_TIMEOUT)?;
        }
        Ok(())
    }
}

/// Runs statements on a new connection.
///
/// # Errors
/// When the server is unreachable or a statement fails.
pub async fn execute(url: &str, statements: &str) -> Result<()> {
    let (url, statements) = (url.to_owned(), statements.to_owned());
    tokio::task::spawn_blocking(move || execute_blocking(&url, &statements))
        .await
        .context("the thread of a statement")?
}

/// As [`execute`]; the thread must not belong to a runtime.
fn execute_blocking(url: &str, statements: &str) -> Result<()> {
    let mut client = Client::connect(url, NoTls).context("connecting to Postgres")?;
    let timeout = STATEMENT_TIMEOUT.as_millis();
    client.batch_execute(&format!("SET statement_timeout = {timeout}"))?;
    let done = client.batch_execute(statements);
    done.with_context(|| format!("running {statements:?}"))
}

/// The pid file contains the process id, and in line 8 the connection status.
fn is_ready(pid_file: &Path, expected: &(String, String)) -> bool {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&expected.0.as_str())
        && lines.get(3) == Some(&expected.1.as_str())
        && lines.get(7) == Some(&"ready")
}

/// Environment for `psql` and friends on this machine.
///
/// # Errors
/// When no servers are set up.
pub fn client_env() -> Result<BTreeMap<String, String>> {
    let servers = ServerBinaries::find()?;
    ensure!(servers.postgres_bin.is_dir(), "no Postgres programs");
    Ok(servers.postgres_env())
}
