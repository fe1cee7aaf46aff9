//! The JSON document that stands for an undecodable message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Undecodable<'a> {
    reason: &'a str,
    /// The bytes, if they are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// The bytes in standard base64, if they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Builds the document of these bytes.
pub fn document(payload: &[u8], reason: &str) -> String {
    // The store can escape NUL, but control characters show that the bytes are no text.
    let text = std::str::from_utf8(payload).ok();
    let text = text.filter(|text| !text.contains('\0'));
    let document = Undecodable {
        reason,
        text,
        base64: text.is_none().then(|| STANDARD.encode(payload)),
    };
    serde_json::to_string(&document).expect("texts always serialise")
}
