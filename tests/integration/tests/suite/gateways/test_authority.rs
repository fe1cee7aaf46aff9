//! A certificate authority of one test.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    SigningKey as _, date_time_ymd,
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

    /// A client certificate with this subject.
    pub fn of_subject(&self, subject: &[(DnType, DnValue)]) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        self.issue(params)
    }

    /// A client certificate whose name and unit are one part of its subject, which no library makes.
    pub fn of_joined_subject(&self, name: &str, unit: &str) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = distinguished(name, Some(unit));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [tbs, algorithm, _signature] = &der::parts(certificate.der())[..] else {
            panic!("a certificate has three parts");
        };
        let mut fields = der::parts(tbs);
        let mut attributes: Vec<Vec<u8>> = der::parts(&fields[SUBJECT])
            .iter()
            .flat_map(|set| der::parts(set))
            .collect();
        attributes.sort();
        fields[SUBJECT] = der::join(SEQUENCE, &[der::join(SET, &attributes)]);
        let tbs = der::join(SEQUENCE, &fields);
        let mut signature = vec![0];
        signature.extend(self.issuer.key().sign(&tbs).unwrap());
        let signature = der::join(BIT_STRING, &[signature]);
        let certificate = der::join(SEQUENCE, &[tbs, algorithm.clone(), signature]);
        Issued {
            cert: pem(&certificate),
            key: key.serialize_pem(),
        }
    }

    fn issue(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// Place of the subject in the signed part of a certificate.
const SUBJECT: usize = 5;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// As much of DER as it takes to put a certificate together.
mod der {
    /// The values inside a value, each with its tag and length.
    pub fn parts(value: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = &value[header(value)..];
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(header(rest) + length(rest));
            parts.push(part.to_vec());
            rest = behind;
        }
        parts
    }

    /// A value of other ones.
    pub fn join(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        let content = parts.concat();
        let mut value = vec![tag];
        let bytes = content.len().to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        if content.len() >= 0x80 {
            value.push(0x80 | u8::try_from(bytes.len()).unwrap());
        }
        value.extend(bytes);
        value.extend(content);
        value
    }

    fn header(value: &[u8]) -> usize {
        match value[1] {
            short if short < 0x80 => 2,
            long => 2 + usize::from(long & 0x7f),
        }
    }

    fn length(value: &[u8]) -> usize {
        match value[1] {
            short if short < 0x80 => usize::from(short),
            _ => value[2..header(value)]
                .iter()
                .fold(0, |sum, byte| sum * 256 + usize::from(*byte)),
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
