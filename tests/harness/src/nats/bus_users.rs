//! The users of a fleet's bus: accounts of the table, and certificates that identify them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nixfleet_bus::{BusAccess, BusConfig, BusUser};

use super::Authentication;
use crate::pki::Pair;
use crate::scratch;

/// Users of one fleet, with the authority of their certificates.
#[derive(Debug, Clone)]
pub struct BusUsers {
    settings: String,
    api_prefix: String,
    authority: PathBuf,
    /// Certificates by user, the administrator's included.
    dir: PathBuf,
}

impl BusUsers {
    /// Creates certificates for the users of the fleet with this prefix and number of partitions.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn create(name: &str, prefix: &str, partitions: u16) -> Result<Self> {
        let access = BusAccess::new(prefix, partitions);
        let secured = Authentication::create(&format!("{name}-users"))?;
        let dir = scratch::dir(&format!("{name}-bus-users"))?;
        let users = BusUser::ALL.map(BusUser::name).into_iter();
        for user in users.chain([BusAccess::ADMINISTRATOR]) {
            let issued = secured.client(user)?;
            let files = pair(&dir, user);
            std::fs::copy(&issued.cert, &files.cert)?;
            std::fs::copy(&issued.key, &files.key)?;
        }
        Ok(Self {
            settings: secured.settings_by_certificate(&access.nats_accounts()),
            api_prefix: access.api_prefix(),
            authority: secured.authority(),
            dir,
        })
    }

    /// Lines of the servers' configuration: TLS and accounts.
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// The certificate authority of the servers.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Certificate and key of the administrator, who may do everything.
    pub fn administrator(&self) -> Pair {
        pair(&self.dir, BusAccess::ADMINISTRATOR)
    }

    /// The configuration of a user of the table.
    pub fn login(&self, user: BusUser, config: BusConfig) -> BusConfig {
        let files = pair(&self.dir, user.name());
        BusConfig {
            api_prefix: Some(self.api_prefix.clone()),
            ..self.with_certificate(files, config)
        }
    }

    /// The configuration of the administrator.
    pub fn login_administrator(&self, config: BusConfig) -> BusConfig {
        self.with_certificate(self.administrator(), config)
    }

    fn with_certificate(&self, files: Pair, config: BusConfig) -> BusConfig {
        BusConfig {
            ca_file: Some(self.authority.clone()),
            cert_file: Some(files.cert),
            key_file: Some(files.key),
            ..config
        }
    }

    /// Dotted keys of a service of this name.
    pub(crate) fn keys(&self, service: &str) -> Vec<(&'static str, String)> {
        let files = pair(&self.dir, service);
        let path = |path: &Path| path.display().to_string();
        vec![
            ("bus.api_prefix", self.api_prefix.clone()),
            ("bus.ca_file", path(&self.authority)),
            ("bus.cert_file", path(&files.cert)),
            ("bus.key_file", path(&files.key)),
        ]
    }
}

fn pair(dir: &Path, user: &str) -> Pair {
    Pair {
        cert: dir.join(format!("{user}.crt")),
        key: dir.join(format!("{user}.key")),
    }
}
