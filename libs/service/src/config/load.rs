//! Merging the layers and reading the result; every fault is collected.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value as FigmentValue;
use serde_json::Value;

use super::{Faults, ServiceConfig};

/// Limit of wrong values to report; also bounds the repair loop.
const MAX_WRONG_VALUES: usize = 64;

/// Sources of the layers above the defaults.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// TOML file, when there is one.
    pub file: Option<PathBuf>,
    /// Prefix of environment variables, for example `NIXFLEET_INGEST__`.
    pub env_prefix: String,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// `key=value` pairs of `--set`.
    pub set: Vec<String>,
}

/// A single value from the environment or a flag, given as text.
struct Given {
    key: String,
    text: String,
    origin: String,
}

/// Loads and validates a configuration.
///
/// # Errors
/// All faults of all layers and of [`ServiceConfig::validate`] together.
pub fn load<C: ServiceConfig>(sources: &Sources) -> Result<C, Faults> {
    let mut faults = Faults::default();
    let defaults = Serialized::defaults(C::default());
    let template = match Figment::from(&defaults).extract::<Value>() {
        Ok(template) => template,
        Err(error) => {
            faults.add("(defaults)", error.to_string());
            return Err(faults);
        }
    };
    let mut figment = Figment::from(defaults);
    if let Some(path) = &sources.file {
        let file = Toml::file_exact(path);
        match Figment::from(&file).extract::<Value>() {
            Ok(_) => figment = figment.merge(file),
            Err(error) => {
                for error in error {
                    faults.add("(file)", format!("{}: {error}", path.display()));
                }
            }
        }
    }
    let given = collect_given(sources, &mut faults);
    for item in &given {
        let Ok(value) = item.text.parse::<FigmentValue>();
        figment = figment.merge(Serialized::default(&item.key, value));
    }
    let merged = match figment.extract::<Value>() {
        Ok(merged) => merged,
        Err(error) => {
            for error in error {
                faults.add("(merge)", error.to_string());
            }
            return Err(faults);
        }
    };
    let layers = Layers {
        template: &template,
        given: given.iter().map(|item| (item.key.as_str(), item)).collect(),
        file: sources.file.as_ref().map(|path| path.display().to_string()),
    };
    let config = layers.read::<C>(merged, &mut faults);
    if let Some(config) = &config {
        config.validate(&mut faults);
    }
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        Some(_) | None => Err(faults),
    }
}

fn collect_given(sources: &Sources, faults: &mut Faults) -> Vec<Given> {
    let mut given = Vec::new();
    for (name, text) in &sources.env {
        let Some(rest) = name.strip_prefix(&sources.env_prefix) else {
            continue;
        };
        given.push(Given {
            key: rest.to_ascii_lowercase().replace("__", "."),
            text: text.clone(),
            origin: format!("environment variable {name}"),
        });
    }
    given.sort_by(|a, b| a.key.cmp(&b.key));
    for pair in &sources.set {
        match pair.split_once('=') {
            Some((key, text)) if !key.is_empty() => given.push(Given {
                key: key.to_owned(),
                text: text.to_owned(),
                origin: "flag --set".to_owned(),
            }),
            Some(_) | None => faults.add("(flags)", format!("--set {pair:?} is not KEY=VALUE")),
        }
    }
    given.retain(|item| {
        let legal = item.key.split('.').all(|part| !part.is_empty());
        if !legal {
            faults.add(
                item.key.clone(),
                format!("has an empty part (from {})", item.origin),
            );
        }
        legal
    });
    given
}

struct Layers<'a> {
    template: &'a Value,
    /// Later entries override earlier ones, as in the merge.
    given: BTreeMap<&'a str, &'a Given>,
    file: Option<String>,
}

impl Layers<'_> {
    /// Reads the merged value. A value of the wrong type is recorded, replaced by its default, and
    /// reading starts again, so that all wrong values are found.
    fn read<C: ServiceConfig>(&self, mut merged: Value, faults: &mut Faults) -> Option<C> {
        let mut unknown = Vec::new();
        for _ in 0..MAX_WRONG_VALUES {
            unknown.clear();
            let mut track = serde_path_to_error::Track::new();
            let tracked = serde_path_to_error::Deserializer::new(&merged, &mut track);
            let read = serde_ignored::deserialize::<_, _, C>(tracked, |path| {
                unknown.push(path.to_string().replace(".?", ""));
            });
            let error = match read {
                Ok(config) => {
                    for key in &unknown {
                        faults.add(key.clone(), format!("unknown key{}", self.origin(key)));
                    }
                    return Some(config);
                }
                Err(error) => error.to_string(),
            };
            let path: Vec<String> = track.path().iter().map(ToString::to_string).collect();
            if self.retry_as_text(&path, &mut merged)
                || (error.contains("unknown field")
                    && self.drop_unknown(&path, &mut merged, faults))
            {
                continue;
            }
            let key = path.join(".");
            faults.add(key.clone(), format!("{error}{}", self.origin(&key)));
            if !self.restore_default(&path, &mut merged) {
                return None;
            }
        }
        faults.add("(all)", "too many wrong values to go on");
        None
    }

    /// Replaces a guessed number or boolean by its text: `INSTANCE=01` may mean a text. True when
    /// the value at `path` was replaced.
    fn retry_as_text(&self, path: &[String], merged: &mut Value) -> bool {
        let Some(given) = self.given.get(path.join(".").as_str()) else {
            return false;
        };
        match lookup(merged, path) {
            Some(value) if !value.is_string() => {
                *value = Value::String(given.text.clone());
                true
            }
            Some(_) | None => false,
        }
    }

    /// Reports and removes all unknown keys around `path`, because a section with
    /// `deny_unknown_fields` stops at its first one. True when there were any.
    fn drop_unknown(&self, path: &[String], merged: &mut Value, faults: &mut Faults) -> bool {
        let mut template = self.template.clone();
        for depth in (0..=path.len()).rev() {
            let section = &path[..depth];
            let known = lookup(&mut template, section).and_then(|value| value.as_object());
            let given = lookup(merged, section).and_then(Value::as_object_mut);
            let (Some(known), Some(given)) = (known, given) else {
                continue;
            };
            // A section whose default is empty may accept any key.
            if known.is_empty() {
                return false;
            }
            let unknown: Vec<String> = given
                .keys()
                .filter(|key| !known.contains_key(*key))
                .cloned()
                .collect();
            for key in &unknown {
                given.remove(key);
                let key = [section, std::slice::from_ref(key)].concat().join(".");
                faults.add(key.clone(), format!("unknown key{}", self.origin(&key)));
            }
            return !unknown.is_empty();
        }
        false
    }

    /// Restores the default at the nearest level that has one.
    fn restore_default(&self, path: &[String], merged: &mut Value) -> bool {
        for depth in (1..=path.len()).rev() {
            let path = &path[..depth];
            let mut template = self.template.clone();
            let Some(default) = lookup(&mut template, path) else {
                continue;
            };
            let Some(value) = lookup(merged, path) else {
                continue;
            };
            if value == default {
                continue;
            }
            *value = default.clone();
            return true;
        }
        false
    }

    fn origin(&self, key: &str) -> String {
        let below = format!("{key}.");
        let given = self
            .given
            .iter()
            .find(|(given, _)| **given == key || given.starts_with(&below));
        match (given, &self.file) {
            (Some((_, given)), _) => format!(" (from {})", given.origin),
            (None, Some(file)) => format!(" (from {file})"),
            (None, None) => String::new(),
        }
    }
}

fn lookup<'v>(value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, part| match value {
        Value::Object(map) => map.get_mut(part),
        Value::Array(items) => part
            .trim_matches(['[', ']'])
            .parse::<usize>()
            .ok()
            .and_then(|index| items.get_mut(index)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}
