//! Authentication at a nats-server: mutual TLS, and users of one account.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::pki::{Pair, Pki};
use crate::scratch;

/// The authority of the certificates and the account of the users.
pub struct Authentication {
    dir: PathBuf,
    pki: Pki,
    account: KeyPair,
    server: Pair,
    settings: String,
}

impl Authentication {
    /// Creates keys, certificates and an account with JetStream.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn create(name: &str) -> Result<Self> {
        let dir = scratch::dir(&format!("secured-{name}"))?;
        let pki = Pki::create(&dir.join("pki"))?;
        let server = pki.server()?;
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let system = KeyPair::new_account();
        let limits = [
            "subs",
            "data",
            "payload",
            "imports",
            "exports",
            "conn",
            "leaf",
            "mem_storage",
            "disk_storage",
            "streams",
            "consumer",
        ];
        let mut limits: Value = limits.iter().map(|limit| (*limit, json!(-1))).collect();
        limits["wildcards"] = json!(true);
        let of_account = json!({ "type": "account", "version": 2, "limits": limits });
        let settings = format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\n\
             resolver_preload {{\n  {}: {}\n  {}: {}\n}}\n",
            token(
                &operator,
                &operator,
                json!({ "type": "operator", "version": 2 })
            )?,
            system.public_key(),
            system.public_key(),
            token(
                &operator,
                &system,
                json!({ "type": "account", "version": 2 })
            )?,
            account.public_key(),
            token(&operator, &account, of_account)?,
        );
        Ok(Self {
            dir,
            pki,
            account,
            server,
            settings,
        })
    }

    /// Server configuration that requires credentials of a user of the account.
    pub fn settings(&self) -> String {
        self.tls("verify") + &self.settings
    }

    /// Server configuration that maps client certificates to users. `users` is the section with their
    /// permissions.
    pub fn settings_by_certificate(&self, users: &str) -> String {
        self.tls("verify_and_map") + users
    }

    fn tls(&self, verify: &str) -> String {
        format!(
            "tls {{\n  cert_file: \"{}\"\n  key_file: \"{}\"\n  ca_file: \"{}\"\n  {verify}: true\n}}\n",
            self.server.cert.display(),
            self.server.key.display(),
            self.pki.authority().cert.display(),
        )
    }

    /// The certificate authority of the servers.
    pub fn authority(&self) -> PathBuf {
        self.pki.authority().cert
    }

    /// A certificate that servers accept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn client(&self, name: &str) -> Result<Pair> {
        self.pki.agent(name)
    }

    /// The credentials file of a user.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn user(&self, name: &str) -> Result<PathBuf> {
        let user = KeyPair::new_user();
        let of_user = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {}, "sub": {},
        });
        let token = token(&self.account, &user, of_user)?;
        let seed = user.seed().context("reading the seed of a new user")?;
        let path = self.dir.join(format!("{name}.creds"));
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// The claims of `issuer` about `subject`, signed.
///
/// Source: NATS ADR-14, JWT library.
fn token(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> Result<String> {
    let issued_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": subject.public_key(), "iat": issued_at, "iss": issuer.public_key(),
        "name": "test", "sub": subject.public_key(), "nats": nats,
    });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = issuer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
