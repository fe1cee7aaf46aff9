use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

use super::*;

fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in names {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[track_caller]
fn check(common_name: &str, unit: Option<&str>, role: Role, name: &str) {
    let mut names = vec![(DnType::CommonName, common_name)];
    names.extend(unit.map(|unit| (DnType::OrganizationalUnitName, unit)));
    let identity = Identity::from_certificate(&certificate(&names)).unwrap();
    assert_eq!((identity.role, &*identity.name), (role, name));
    assert!(identity.not_before < identity.not_after);
}

#[test]
fn the_unit_decides_the_role_and_the_name_the_host() {
    check("web-1", None, Role::Agent, "web-1");
    check("agent-web-1.fleet.example", None, Role::Agent, "web-1");
    check("agent-web-1", None, Role::Agent, "agent-web-1");
    check("web-1.fleet", None, Role::Agent, "web-1.fleet");
    check("ada", Some("nixfleet-operator"), Role::Operator, "ada");
    check(
        "agent-x.y",
        Some("nixfleet-operator"),
        Role::Operator,
        "agent-x.y",
    );
    check("pipeline", Some("nixfleet-ci"), Role::Ci, "pipeline");
    check("web-1", Some("someone else"), Role::Agent, "web-1");
}

#[test]
fn alternative_names_limit_a_certificate_to_channels() {
    let read = |uris: &[&str]| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "ada");
        for uri in uris {
            let uri = (*uri).try_into().unwrap();
            params.subject_alt_names.push(rcgen::SanType::URI(uri));
        }
        let key = KeyPair::generate().unwrap();
        Identity::from_certificate(params.self_signed(&key).unwrap().der())
    };
    let [stable, edge] = ["stable", "edge"].map(|name| ChannelName::from(name.to_owned()));
    let all = read(&["https://example.org"]).unwrap();
    assert!(all.sees(&stable));
    let uris = ["urn:nixfleet:channel:stable", "urn:nixfleet:channel:beta"];
    let limited = read(&uris).unwrap();
    assert!(limited.sees(&stable) && !limited.sees(&edge));
    let twice = read(&["urn:nixfleet:channel:stable"; 2]);
    assert_eq!(twice, Err(IdentityError::ChannelTwice(stable.clone())));
    let wrong = read(&["urn:nixfleet:channel:No Channel"]);
    assert_eq!(wrong, Err(IdentityError::Channel("No Channel".to_owned())));
    for misspelt in [
        "urn:nixfleet:channels:stable",
        "URN:NixFleet:channel:stable",
        " urn:nixfleet:channel:stable",
        "urn:nixfleet",
    ] {
        let wrong = read(&[misspelt]);
        assert_eq!(wrong, Err(IdentityError::Channel(misspelt.to_owned())));
    }
}

fn refusal(names: &[(DnType, DnValue)]) -> Option<(String, &'static str)> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in names {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    match Identity::from_certificate(certificate.der()) {
        Err(IdentityError::Attribute { attribute, fault }) => Some((attribute, fault)),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

/// The same attribute for a second time: rcgen keeps one of each kind it knows.
fn again(last: u64) -> DnType {
    DnType::CustomDnType(vec![2, 5, 4, last])
}

#[test]
fn an_attribute_that_two_readers_could_read_differently_refuses_the_certificate() {
    let text = |text: &str| DnValue::Utf8String(text.to_owned());
    let name = || (DnType::CommonName, text("ada"));
    let unit = || (DnType::OrganizationalUnitName, text("nixfleet-operator"));
    let country = (
        DnType::CountryName,
        DnValue::PrintableString("DE".try_into().unwrap()),
    );
    assert_eq!(refusal(&[name(), unit(), country]), None);
    let check = |names: &[(DnType, DnValue)], attribute: &str, fault: &str| {
        let refused = refusal(names);
        let (found, said) = refused.unwrap_or_else(|| panic!("{attribute} {fault}"));
        assert_eq!(found, attribute);
        assert!(said.contains(fault), "{said}");
    };
    check(&[name(), unit(), (again(3), text("bob"))], "CN", "twice");
    check(
        &[name(), unit(), (again(11), text("nixfleet-admin"))],
        "OU",
        "twice",
    );
    check(&[name(), (again(11), text("it")), unit()], "OU", "twice");
    let bmp = || DnValue::BmpString("nixfleet-operator".try_into().unwrap());
    let teletex = || DnValue::TeletexString("nixfleet-operator".try_into().unwrap());
    let universal = || DnValue::UniversalString("nixfleet-operator".try_into().unwrap());
    for value in [bmp(), teletex(), universal()] {
        let unreadable = "another type";
        check(
            &[name(), (DnType::OrganizationalUnitName, value.clone())],
            "OU",
            unreadable,
        );
        check(
            &[(DnType::CommonName, value.clone()), unit()],
            "CN",
            unreadable,
        );
        check(
            &[name(), unit(), (DnType::OrganizationName, value)],
            "O",
            unreadable,
        );
    }
    for hidden in ["ada\n", "a\u{200b}da", "\u{202e}ada", "ada\0"] {
        check(
            &[(DnType::CommonName, text(hidden)), unit()],
            "CN",
            "invisible",
        );
        check(
            &[name(), unit(), (DnType::LocalityName, text(hidden))],
            "L",
            "invisible",
        );
    }
}

#[test]
fn a_limit_of_the_wrong_kind_of_name_is_no_missing_limit() {
    let read = |name: rcgen::SanType| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "ada");
        params.subject_alt_names.push(name);
        let key = KeyPair::generate().unwrap();
        Identity::from_certificate(params.self_signed(&key).unwrap().der())
    };
    let limit = "urn:nixfleet:channel:stable";
    let refused = Err(IdentityError::Channel(limit.to_owned()));
    assert_eq!(
        read(rcgen::SanType::DnsName(limit.try_into().unwrap())),
        refused
    );
    assert_eq!(
        read(rcgen::SanType::Rfc822Name(limit.try_into().unwrap())),
        refused
    );
    assert!(read(rcgen::SanType::DnsName("ada.example".try_into().unwrap())).is_ok());
}

#[test]
fn a_certificate_without_one_clear_name_names_nobody() {
    let read = |names: &[(DnType, &str)]| Identity::from_certificate(&certificate(names));
    let unit = (DnType::OrganizationalUnitName, "nixfleet-operator");
    assert_eq!(
        read(std::slice::from_ref(&unit)),
        Err(IdentityError::NoCommonName)
    );
    let long = "x".repeat(254);
    for illegal in ["", " ", " ada", "ä", &long] {
        let names = [(DnType::CommonName, illegal), unit.clone()];
        assert_eq!(read(&names), Err(IdentityError::IllegalName), "{illegal:?}");
    }
    for illegal in ["", "Web-1", "web_1", "agent-.fleet", "a b", "*", &long] {
        let name = (DnType::CommonName, illegal);
        let refused = read(&[name]);
        assert!(
            matches!(refused, Err(IdentityError::Host(_))),
            "{illegal:?}"
        );
    }
    assert_eq!(
        Identity::from_certificate(b"nonsense"),
        Err(IdentityError::Unreadable)
    );
}

#[test]
fn units_name_the_roles_of_people() {
    for role in PEOPLE {
        let unit = format!("nixfleet-{}", role.name());
        assert_eq!(Role::of_unit(&unit), Some(role));
    }
    assert_eq!(Role::of_unit("nixfleet-agent"), None);
    assert_eq!(Role::of_unit("operator"), None);
    assert_eq!(role_of("Operations"), Ok(Role::Agent));
    for misspelt in [
        "nixfleet-agent",
        "nixfleet-Operator",
        "NixFleet-operator",
        " nixfleet-ci",
    ] {
        assert_eq!(
            role_of(misspelt),
            Err(IdentityError::Role(misspelt.to_owned()))
        );
    }
}
