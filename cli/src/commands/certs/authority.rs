//! The development authority and what it issues.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::ValueEnum;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use crate::atomic_files::{self, Access, Existing};
use crate::command_error::{CommandError, InputContext};
use crate::time;

/// Validity starts earlier by this time, for hosts whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60);
/// Longest validity, a hundred years.
const DAYS_MAX: u32 = 36_500;

/// The role of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// A host
    #[value(skip)]
    Agent,
    /// Reads
    Viewer,
    /// Reads, commands, pushes releases
    Operator,
    /// Reads, approves
    Approver,
    /// Everything a person may do
    Admin,
    /// A pipeline
    #[value(skip)]
    Ci,
}

impl Role {
    pub fn directory(self) -> &'static str {
        match self {
            Self::Agent => "agents",
            Self::Viewer | Self::Operator | Self::Approver | Self::Admin => "people",
            Self::Ci => "ci",
        }
    }

    /// The organisational unit, which determines the rights of the certificate.
    ///
    /// Source: docs/roles.md.
    fn unit(self) -> Option<&'static str> {
        match self {
            Self::Agent => None,
            Self::Viewer => Some("nixfleet-viewer"),
            Self::Operator => Some("nixfleet-operator"),
            Self::Approver => Some("nixfleet-approver"),
            Self::Admin => Some("nixfleet-admin"),
            Self::Ci => Some("nixfleet-ci"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// Serving under these names and addresses.
    Server { names: &'a [String] },
    /// Asking a server in a role, about these channels alone when there are any.
    Client { role: Role, channels: &'a [String] },
}

#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    pub common_name: &'a str,
    pub purpose: Purpose<'a>,
    pub days: u32,
}

/// An authority that can issue.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// True when the directory contains an authority, or part of one.
pub fn exists(dir: &Path) -> bool {
    dir.join("ca.crt").exists() || dir.join("ca.key").exists()
}

/// Makes an authority.
///
/// # Errors
/// Exit code 2.
pub fn create(dir: &Path, name: &str, days: u32) -> Result<(), CommandError> {
    let key = new_key()?;
    let mut params = params(name, days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .or_input_error(|| "cannot make the authority".to_owned())?;
    let secret = key.serialize_pem();
    let keep = Existing::Keep;
    atomic_files::write(&dir.join("ca.key"), secret.as_bytes(), Access::Secret, keep)?;
    let certificate = certificate.pem();
    atomic_files::write(
        &dir.join("ca.crt"),
        certificate.as_bytes(),
        Access::Public,
        keep,
    )
}

impl Authority {
    /// Reads the authority of a directory.
    pub fn open(dir: &Path) -> Result<Self, CommandError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).or_input_error(|| {
                format!(
                    "cannot read {}; `nixfleet certs --dir {} ca` makes an authority",
                    path.display(),
                    dir.display()
                )
            })
        };
        let context = || format!("the authority in {} cannot be used", dir.display());
        let key = KeyPair::from_pem(&read("ca.key")?).or_input_error(context)?;
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt")?, key).or_input_error(context)?;
        Ok(Self { issuer })
    }

    /// Issues a certificate with a new key, as `<path>.crt` and `<path>.key`.
    ///
    /// # Errors
    /// Exit code 2.
    pub fn issue(&self, leaf: &Leaf<'_>, path: &Path) -> Result<(), CommandError> {
        let key = new_key()?;
        let mut params = params(leaf.common_name, leaf.days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match leaf.purpose {
            Purpose::Server { names } => {
                let named = CertificateParams::new(names.to_vec())
                    .or_input_error(|| format!("{names:?} are not DNS names or addresses"))?;
                params.subject_alt_names = named.subject_alt_names;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Purpose::Client { role, channels } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                if let Some(unit) = role.unit() {
                    params
                        .distinguished_name
                        .push(DnType::OrganizationalUnitName, unit);
                }
                for channel in channels {
                    let uri = format!("urn:nixfleet:channel:{channel}");
                    let uri = uri
                        .try_into()
                        .or_input_error(|| format!("{channel:?} is not the name of a channel"))?;
                    params.subject_alt_names.push(SanType::URI(uri));
                }
            }
        }
        let certificate = params
            .signed_by(&key, &self.issuer)
            .or_input_error(|| format!("cannot issue a certificate for {}", leaf.common_name))?;
        store(path, &certificate.pem(), &key)
    }
}

fn new_key() -> Result<KeyPair, CommandError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).or_input_error(|| "cannot make a key".to_owned())
}

fn params(common_name: &str, days: u32) -> Result<CertificateParams, CommandError> {
    if days == 0 || days > DAYS_MAX {
        return Err(CommandError::input(anyhow!(
            "--days must be between 1 and {DAYS_MAX}"
        )));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // Seconds count: a revocation refuses what was issued before it, and a certificate that is
    // renewed on the same day must pass.
    let now = u64::try_from(time::now().timestamp())
        .or_input_error(|| "the clock is before 1970".to_owned())?;
    let begin = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    params.not_before = begin - BACKDATED;
    params.not_after = begin + Duration::from_secs(u64::from(days) * 86_400);
    Ok(params)
}

fn store(path: &Path, pem: &str, key: &KeyPair) -> Result<(), CommandError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let key = key.serialize_pem();
    atomic_files::write_without_sync(&with(".key"), key.as_bytes(), Access::Secret)?;
    atomic_files::write_without_sync(&with(".crt"), pem.as_bytes(), Access::Public)
}
