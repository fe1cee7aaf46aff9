//! Printing the effective configuration without secrets.

use serde_json::Value;

use super::ServiceConfig;

const HIDDEN: &str = "[redacted]";

/// The configuration as JSON, without secrets.
///
/// # Panics
/// When the configuration cannot be serialised as JSON, for example a map whose keys are not texts.
pub fn redacted<C: ServiceConfig>(config: &C) -> Value {
    let mut value = serde_json::to_value(config).expect("a configuration is plain data");
    hide(&mut value, &mut Vec::new(), C::secret_keys());
    value
}

/// The configuration as a TOML file that can be loaded again, without secrets and without keys that have no
/// value.
///
/// # Panics
/// Like [`redacted`].
pub fn to_toml<C: ServiceConfig>(config: &C) -> String {
    let mut value = redacted(config);
    drop_nulls(&mut value);
    toml::to_string(&value).expect("a configuration is plain data")
}

fn hide(value: &mut Value, path: &mut Vec<String>, secret_keys: &[&str]) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                path.push(key.clone());
                hide(value, path, secret_keys);
                path.pop();
            }
        }
        Value::Array(items) => {
            for item in items {
                hide(item, path, secret_keys);
            }
        }
        Value::String(text) => {
            let last = path.last().map_or("", String::as_str);
            let named = ["password", "secret", "token"]
                .iter()
                .any(|word| last.ends_with(word));
            if named || secret_keys.contains(&path.join(".").as_str()) {
                if !text.is_empty() {
                    HIDDEN.clone_into(text);
                }
            } else if let Some(masked) = mask_password(text) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Masks the passwords of `scheme://user:password@host`, one or several separated by commas, and of
/// `password=…` connection strings.
fn mask_password(text: &str) -> Option<String> {
    if text.contains("://") {
        let urls: Vec<&str> = text.split(',').collect();
        let masked: Vec<Option<String>> = urls.iter().map(|url| mask_url(url)).collect();
        let any = masked.iter().any(Option::is_some);
        let shown = masked.into_iter().zip(urls);
        let shown: Vec<String> = shown
            .map(|(masked, url)| masked.unwrap_or_else(|| url.to_owned()))
            .collect();
        return any.then(|| shown.join(","));
    }
    text.contains("password=").then(|| {
        text.split(' ')
            .map(|part| {
                if part.starts_with("password=") {
                    format!("password={HIDDEN}")
                } else {
                    part.to_owned()
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    })
}

fn mask_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (userinfo, _) = rest[..authority_end].rsplit_once('@')?;
    let host = &rest[userinfo.len()..];
    match userinfo.split_once(':') {
        Some((user, _)) => Some(format!("{scheme}://{user}:{HIDDEN}{host}")),
        // NATS accepts a token there.
        None if matches!(scheme.trim(), "nats" | "tls" | "ws" | "wss") => {
            Some(format!("{scheme}://{HIDDEN}{host}"))
        }
        None => None,
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
