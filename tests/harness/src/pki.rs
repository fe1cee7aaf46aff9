//! A certificate authority of one run, with everybody's certificates as files.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};

/// Organisational unit that makes a client certificate an operator's.
pub const OPERATOR_UNIT: &str = "nixfleet-operator";

/// An authority and the files it has issued.
pub struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Private key, PEM, for its owner only.
    pub key: PathBuf,
}

impl Pki {
    /// Makes the authority in `dir`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name("NixFleet development authority", None);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let files = pair(dir, "ca");
        write(&files, &certificate.pem(), &key)?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority that wrote these files, to issue more beside them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(authority: &Pair) -> Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let key = KeyPair::from_pem(&read(&authority.key)?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&authority.cert)?, key)?;
        let dir = authority.cert.parent().unwrap_or(Path::new("."));
        Ok(Self {
            dir: dir.to_owned(),
            issuer,
        })
    }

    /// The authority's own files.
    pub fn authority(&self) -> Pair {
        pair(&self.dir, "ca")
    }

    /// A server certificate for `localhost` and `127.0.0.1`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn server(&self) -> Result<Pair> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name("localhost", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue("server", params)
    }

    /// A client certificate of an operator.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn operator(&self, operator: &str) -> Result<Pair> {
        self.client(operator, Some(OPERATOR_UNIT))
    }

    /// A client certificate of a host.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn agent(&self, hostname: &str) -> Result<Pair> {
        self.client(hostname, None)
    }

    fn client(&self, common_name: &str, unit: Option<&str>) -> Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name(common_name, unit);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(common_name, params)
    }

    fn issue(&self, file: &str, params: CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = pair(&self.dir, file);
        write(&files, &certificate.pem(), &key)?;
        Ok(files)
    }
}

fn name(common_name: &str, unit: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(unit) = unit {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name
}

fn pair(dir: &Path, file: &str) -> Pair {
    Pair {
        cert: dir.join(format!("{file}.crt")),
        key: dir.join(format!("{file}.key")),
    }
}

fn write(files: &Pair, certificate: &str, key: &KeyPair) -> Result<()> {
    std::fs::write(&files.cert, certificate)
        .with_context(|| format!("writing {}", files.cert.display()))?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&files.key)
        .with_context(|| format!("writing {}", files.key.display()))?;
    std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes())?;
    Ok(())
}
