#!/bin/sh
# rcgen 0.14.10 (builds the certificate), x509-parser 0.18.1 (reads it).
#
# Expected: `DistinguishedName::push` adds an attribute, as its name and that of `Vec::push` say. X.509 allows
# several attributes of one type in a subject (RFC 5280, section 4.1.2.4), and two organisational units are common:
# a department and a role. A subject with three pushes has three attributes.
#
# Seen: a second push of the same type replaces the first value in its old place. No error, no sign: the certificate is
# issued without the first unit. A program that keeps a role in one unit and a limit in another one issues certificates
# without the role, or without the limit. Several values of one kind fit into alternative names (a list) instead.
#
# Exit code 0: as seen above. 1: it changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "units"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
rcgen = "=0.14.10"
x509-parser = "=0.18.1"
TOML
cat >"$dir/src/main.rs" <<'RUST'
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use x509_parser::prelude::{FromDer, X509Certificate};

fn main() {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationalUnitName, "role-operator");
    name.push(DnType::CommonName, "ada");
    name.push(DnType::OrganizationalUnitName, "department-storage");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = name;
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let (_, read) = X509Certificate::from_der(certificate.der()).unwrap();
    let subject = read.subject().to_string();
    println!("subject of three pushes: {subject}");
    assert_eq!(subject, "OU=department-storage, CN=ada", "changed");
}
RUST
cd "$dir"
CARGO_TARGET_DIR="$dir/target" cargo run --quiet
