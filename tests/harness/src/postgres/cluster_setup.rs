//! Creation of a Postgres cluster: data directory, users, certificate and server options.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{OWNER, PASSWORD, Postgres, execute_blocking};
use crate::pki::Pair;
use crate::service::Service;

impl Postgres {
    pub(super) fn init_cluster(&self) -> Result<()> {
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

    pub(super) fn install(&self, certificate: &Pair) -> Result<()> {
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

    /// Creates the users of the cluster on another thread: the caller may be a task of a runtime, in which
    /// the blocking client panics.
    pub(super) fn create_users(&self) -> Result<()> {
        let create = |user| format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}';");
        let services = Service::ALL.map(|service| create(format!("nixfleet_{service}")));
        let statements = create(OWNER.to_owned()) + &services.concat();
        let url = self.superuser_url("postgres");
        let made = std::thread::spawn(move || execute_blocking(&url, &statements));
        made.join().expect("the thread does not panic")
    }

    pub(super) fn arguments(&self) -> Vec<String> {
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
            // The tests kill processes, not the machine, so data in the page cache survives.
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
}
