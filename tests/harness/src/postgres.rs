//! A Postgres server of our own.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio_postgres::NoTls;

use crate::dev::Servers;
use crate::pki::Pair;
use crate::process::{Process, Recipe};
use crate::service::Service;
use crate::wait::{POLL, wait_blocking};
use crate::watchdog::Ending;
use crate::{ports, scratch};

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Statements wait for the locks of running services.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(60);
const PORT_ATTEMPTS: u32 = 5;

/// The unprivileged user and group (`nobody`) that Postgres runs as when we are root.
const NOBODY: (u32, u32) = (65_534, 65_534);

/// Password of the superuser; the server listens on the loopback address only and dies with us.
const PASSWORD: &str = "nixfleet-development";

/// Who owns the databases; not a superuser, as in production.
const OWNER: &str = "nixfleet_owner";

/// A Postgres server with an empty cluster, the owner of all databases and a user per service.
#[derive(Debug)]
pub struct Postgres {
    servers: Servers,
    dir: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    tls: bool,
    durable: bool,
    process: Option<Process>,
}

/// One database on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// `postgres://…` of its owner, with password.
    pub url: String,
}

impl Database {
    /// The same database as the user of a service.
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

    /// Starts one that shows this certificate and serves nobody but its superuser in the clear.
    ///
    /// # Errors
    /// As [`Postgres::start`], and when the certificate cannot be read.
    pub fn start_with_tls(name: &str, certificate: &Pair) -> Result<Self> {
        Self::start_cluster(name, (Some(certificate), false))
    }

    /// Starts one that waits for the disk at every commit, with the memory of a small server: for
    /// measurements.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_durable(name: &str) -> Result<Self> {
        Self::start_cluster(name, (None, true))
    }

    fn start_cluster(name: &str, (certificate, durable): (Option<&Pair>, bool)) -> Result<Self> {
        let servers = Servers::find()?;
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
            process: None,
        };
        postgres.init_cluster()?;
        postgres.create_users()?;
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

    fn init_cluster(&self) -> Result<()> {
        let password = self.dir.join("password");
        std::fs::write(&password, PASSWORD)?;
        if let Some((uid, gid)) = self.user {
            chown(&self.dir, Some(uid), Some(gid)).context("giving a directory to Postgres")?;
            chown(&password, Some(uid), Some(gid))?;
        }
        let mut command = Command::new(self.servers.postgres_bin.join("initdb"));
        command
            .envs(self.servers.postgres_env())
            .current_dir(&self.dir)
            .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--pgdata={}", self.data().display()));
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let output = command.output().context("running initdb")?;
        if !output.status.success() {
            bail!(
                "initdb ended with {}:\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    fn install(&self, certificate: &Pair) -> Result<()> {
        let files = [
            (&certificate.cert, self.dir.join("server.crt")),
            (&certificate.key, self.dir.join("server.key")),
        ];
        for (from, to) in files {
            let bytes = std::fs::read(from);
            let bytes = bytes.with_context(|| format!("reading {}", from.display()))?;
            std::fs::write(&to, bytes)?;
            std::fs::set_permissions(&to, Permissions::from_mode(0o600))?;
            if let Some((uid, gid)) = self.user {
                chown(&to, Some(uid), Some(gid))?;
            }
        }
        let access = "host all postgres 127.0.0.1/32 scram-sha-256\n\
                      hostssl all all 127.0.0.0/8 scram-sha-256\n";
        std::fs::write(self.data().join("pg_hba.conf"), access).context("writing pg_hba.conf")
    }

    /// Users belong to the cluster, so they are made before it serves anybody.
    fn create_users(&self) -> Result<()> {
        let mut statements = format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}';\n");
        for service in Service::ALL {
            let user = format!("CREATE ROLE nixfleet_{service} LOGIN PASSWORD '{PASSWORD}';\n");
            statements.push_str(&user);
        }
        let mut command = Command::new(self.servers.postgres_bin.join("postgres"));
        command
            .envs(self.servers.postgres_env())
            .current_dir(&self.dir)
            .args(["--single", "-j", "-c", "log_statement=none", "-D"])
            .arg(self.data())
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let mut child = command
            .spawn()
            .context("starting Postgres to make its users")?;
        let mut input = child.stdin.take().context("Postgres reads statements")?;
        // With -j a statement ends at a semicolon followed by an empty line.
        input.write_all(statements.replace(";\n", ";\n\n").as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && !said.contains("ERROR"),
            "making the users of Postgres ended with {}:\n{said}",
            output.status
        );
        Ok(())
    }

    /// Starts it again on the same port and the same cluster. After [`Self::kill`] its orphaned
    /// children hold the shared memory for a moment, and a new server refuses to start so long.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn restart(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.launch() {
                Err(error) if start.elapsed() < START_PATIENCE => {
                    drop(error);
                    std::thread::sleep(POLL);
                }
                launched => return launched,
            }
        }
    }

    fn launch(&mut self) -> Result<()> {
        self.kill()?;
        let mut recipe = Recipe::new(
            "postgres",
            self.servers.postgres_bin.join("postgres"),
            self.dir.join("postgres.log"),
        );
        recipe.args = self.arguments();
        recipe.env = self.servers.postgres_env();
        recipe.dir = Some(self.dir.clone());
        recipe.user = self.user;
        recipe.ending = Ending::Quit;
        let mut process = Process::start(recipe)?;
        let expected = (process.pid().to_string(), self.port.to_string());
        let pid_file = self.data().join("postmaster.pid");
        wait_blocking("Postgres ready", START_PATIENCE, || {
            process.check_alive()?;
            Ok(is_ready(&pid_file, &expected).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-D".to_owned(), self.data().display().to_string()];
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", self.dir.display().to_string()),
            ("max_connections", "300".to_owned()),
            ("log_min_messages", "warning".to_owned()),
        ];
        let further: &[(&str, &str)] = if self.durable {
            &[
                ("shared_buffers", "512MB"),
                ("max_wal_size", "4GB"),
                ("fsync", "on"),
                ("synchronous_commit", "on"),
            ]
        } else {
            // The tests kill processes, not the machine: what the kernel holds is not lost.
            &[
                ("shared_buffers", "64MB"),
                ("max_wal_size", "1GB"),
                ("fsync", "off"),
            ]
        };
        settings.extend(
            further
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned())),
        );
        if self.tls {
            // A second address, which the certificate does not name.
            settings[0].1.push_str(",127.0.0.2");
            let path = |name| self.dir.join(name).display().to_string();
            settings.extend([
                ("ssl", "on".to_owned()),
                ("ssl_cert_file", path("server.crt")),
                ("ssl_key_file", path("server.key")),
            ]);
        }
        for (key, value) in settings {
            arguments.push("-c".to_owned());
            arguments.push(format!("{key}={value}"));
        }
        arguments
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id while it runs.
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
        self.init_cluster()?;
        self.create_users()
    }

    /// Copies the whole cluster; only while stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn back_up(&self) -> Result<()> {
        ensure!(self.process.is_none(), "Postgres still runs");
        scratch::copy(&self.data(), &self.dir.join("backup"))
    }

    /// Puts the copy in the place of the cluster; only while stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn restore(&self) -> Result<()> {
        ensure!(self.process.is_none(), "Postgres still runs");
        scratch::copy(&self.dir.join("backup"), &self.data())
    }

    /// Creates a database that was lost, empty.
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

    /// An immediate shutdown: clients are cut off, nothing is written, the next start recovers.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn quit(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::QUIT, STOP_PATIENCE)?;
        }
        Ok(())
    }

    /// An orderly stop that does not wait for clients.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::INT, STOP_PATIENCE)?;
        }
        Ok(())
    }
}

/// Runs statements on a connection of its own.
///
/// # Errors
/// When the server cannot be reached, refuses or does not answer.
pub async fn execute(url: &str, statements: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connecting to Postgres")?;
    let driver = tokio::spawn(connection);
    let done = tokio::time::timeout(STATEMENT_PATIENCE, client.batch_execute(statements)).await;
    let done = done.with_context(|| format!("no answer to {statements:?}"))?;
    let done = done.with_context(|| format!("running {statements:?}"));
    drop(client);
    driver.await.context("the connection task")??;
    done
}

/// The pid file names the process, and on its eighth line whether it takes connections.
fn is_ready(pid_file: &Path, expected: &(String, String)) -> bool {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&expected.0.as_str())
        && lines.get(3) == Some(&expected.1.as_str())
        && lines.get(7) == Some(&"ready")
}

fn unprivileged() -> Result<Option<(u32, u32)>> {
    let own = std::fs::metadata("/proc/self").context("asking who runs this")?;
    Ok((own.uid() == 0).then_some(NOBODY))
}

fn check_reachable(program: &Path) -> Result<()> {
    let blocked = program.ancestors().skip(1).find(|dir| {
        dir.metadata()
            .is_ok_and(|metadata| metadata.mode() & 0o001 == 0)
    });
    if let Some(dir) = blocked {
        bail!(
            "Postgres does not run as root, and the unprivileged user cannot enter {}; run \
             `cargo xtask setup`, which puts a copy where it can",
            dir.display()
        );
    }
    Ok(())
}

/// Environment for `psql` and friends on this machine.
///
/// # Errors
/// When no servers are set up.
pub fn client_env() -> Result<BTreeMap<String, String>> {
    let servers = Servers::find()?;
    ensure!(servers.postgres_bin.is_dir(), "no Postgres programs");
    Ok(servers.postgres_env())
}
