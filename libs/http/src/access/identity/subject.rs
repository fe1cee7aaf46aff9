//! The subject of a certificate, read in one way or not at all.

use std::collections::HashMap;

use nixfleet_proto::hidden_character;
use x509_parser::asn1_rs::Tag;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATIONAL_UNIT};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::error::IdentityError;

/// What a subject says about its client.
pub(super) struct Subject<'c> {
    pub common_name: &'c str,
    /// Organisational unit.
    pub unit: Option<&'c str>,
}

impl<'c> Subject<'c> {
    /// Reads every attribute, those that nobody asks for too: what one reader cannot read or sees twice, another one
    /// could take for the name.
    pub(super) fn read(name: &X509Name<'c>) -> Result<Self, IdentityError> {
        let mut texts = HashMap::new();
        for relative in name.iter_rdn() {
            let mut attributes = relative.iter();
            let Some(attribute) = attributes.next() else {
                return Err(IdentityError::Unreadable);
            };
            if let Some(second) = attributes.next() {
                return Err(fault(
                    second,
                    "shares its part of the name with another attribute",
                ));
            }
            let text = text_of(attribute)?;
            if texts.insert(attribute.attr_type(), text).is_some() {
                return Err(fault(attribute, "appears twice"));
            }
        }
        let common_name = texts.get(&OID_X509_COMMON_NAME).copied();
        Ok(Self {
            common_name: common_name.ok_or(IdentityError::NoCommonName)?,
            unit: texts.get(&OID_X509_ORGANIZATIONAL_UNIT).copied(),
        })
    }
}

/// The text of an attribute, of one of the three types that every reader decodes alike.
fn text_of<'c>(attribute: &AttributeTypeAndValue<'c>) -> Result<&'c str, IdentityError> {
    let value = attribute.attr_value();
    let is_text = matches!(
        value.tag(),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String
    );
    if !is_text || value.header.is_constructed() {
        return Err(fault(
            attribute,
            "is of another type than UTF8String, PrintableString and IA5String",
        ));
    }
    let text = std::str::from_utf8(value.data)
        .ok()
        .filter(|text| value.tag() == Tag::Utf8String || text.is_ascii())
        .ok_or_else(|| fault(attribute, "has bytes that its type does not allow"))?;
    if hidden_character(text).is_some() {
        return Err(fault(attribute, "has an invisible character"));
    }
    Ok(text)
}

fn fault(attribute: &AttributeTypeAndValue<'_>, fault: &'static str) -> IdentityError {
    let kind = attribute.attr_type();
    let name = oid2abbrev(kind, oid_registry());
    IdentityError::Attribute {
        attribute: name.map_or_else(|_| kind.to_id_string(), str::to_owned),
        fault,
    }
}
