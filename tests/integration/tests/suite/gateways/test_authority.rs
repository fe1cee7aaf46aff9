//! A certificate authority of one test.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// An authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub pem: String,
}

/// A certificate and its key, both PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Validity {
    /// For decades around now.
    Now,
    /// Years ago.
    Over,
    /// From long ago until so many seconds from now.
    Seconds(u64),
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = distinguished(name, None);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// A server certificate for `localhost`.
    pub fn server(&self) -> Issued {
        let names = vec!["localhost".to_owned()];
        self.issue(CertificateParams::new(names).unwrap())
    }

    /// A client certificate.
    pub fn client(&self, name: &str, unit: Option<&str>, validity: Validity) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = distinguished(name, unit);
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1)),
            Validity::Seconds(seconds) => {
                let now = std::time::SystemTime::now();
                let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
                let end = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(seconds);
                (date_time_ymd(2020, 1, 1), end)
            }
            Validity::Over => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        };
        self.issue(params)
    }

    /// A client certificate with URIs as alternative names.
    pub fn limited(&self, name: &str, unit: &str, uris: impl Iterator<Item = String>) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = distinguished(name, Some(unit));
        let uris = uris.map(|uri| rcgen::SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn distinguished(name: &str, unit: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    if let Some(unit) = unit {
        distinguished.push(DnType::OrganizationalUnitName, unit);
    }
    distinguished
}
