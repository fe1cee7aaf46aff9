//! The protocol header.

use http::{HeaderMap, StatusCode};
use nixfleet_proto::wire::{PROTOCOL_HEADER, PROTOCOL_VERSION};

use crate::problem::ApiError;

/// What a request without the header means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The one version there is.
    Accepted,
    /// A client that does not say what it speaks.
    Refused,
}

/// Checks the protocol header.
///
/// # Errors
/// 426 for another version, 400 for no number, and 400 when absent and that is refused.
///
/// Source: docs/wire-protocol.md, protocol version.
pub fn check(headers: &HeaderMap, absent: Absent) -> Result<(), ApiError> {
    let Some(value) = headers.get(PROTOCOL_HEADER) else {
        return match absent {
            Absent::Accepted => Ok(()),
            Absent::Refused => Err(ApiError::refused(
                StatusCode::BAD_REQUEST,
                "protocol-version-required",
                format!("the header {PROTOCOL_HEADER} is required"),
            )),
        };
    };
    match value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<i64>().ok())
    {
        Some(version) if version == i64::from(PROTOCOL_VERSION) => Ok(()),
        Some(version) => Err(ApiError::refused(
            StatusCode::UPGRADE_REQUIRED,
            "protocol-version-unsupported",
            format!("version {version} is not spoken here, version {PROTOCOL_VERSION} is"),
        )),
        None => Err(ApiError::refused(
            StatusCode::BAD_REQUEST,
            "protocol-version-invalid",
            format!("the header {PROTOCOL_HEADER} must be an integer"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check_header(value: Option<&str>, absent: Absent, status: Option<u16>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(PROTOCOL_HEADER, HeaderValue::from_str(value).unwrap());
        }
        let refused = check(&headers, absent).err();
        assert_eq!(refused.map(|error| error.status().as_u16()), status);
    }

    #[test]
    fn only_version_one_is_spoken() {
        check_header(Some("1"), Absent::Refused, None);
        check_header(Some("2"), Absent::Accepted, Some(426));
        check_header(Some("-1"), Absent::Accepted, Some(426));
        check_header(Some("one"), Absent::Accepted, Some(400));
        check_header(Some("1.0"), Absent::Accepted, Some(400));
        check_header(None, Absent::Accepted, None);
        check_header(None, Absent::Refused, Some(400));
    }
}
