//! Named connections of a user, kept in one file, so that commands are short.
//!
//! ```json
//! { "current": "prod", "contexts": { "prod": { "url": "https://…", "ca": "…", "cert": "…", "key": "…" } } }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde::{Deserialize, Serialize};

use crate::atomic_files::{self, Access, Existing};
use crate::command_error::{CommandError, InputContext};

/// Variable that names another file.
const FILE_VARIABLE: &str = "NIXFLEET_CONTEXTS";

/// The console of a fleet and a user's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    pub url: String,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// All contexts of a user.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the one that commands use.
    #[serde(default)]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the user's file; none is no context.
    ///
    /// # Errors
    /// Exit code 2: the file cannot be read.
    pub fn read() -> Result<Self, CommandError> {
        match file() {
            Some(file) if file.exists() => Self::parse(&file, &atomic_files::read(&file)?),
            Some(_) | None => Ok(Self::default()),
        }
    }

    fn parse(file: &Path, bytes: &[u8]) -> Result<Self, CommandError> {
        serde_json::from_slice(bytes)
            .or_input_error(|| format!("{} is no file of contexts", file.display()))
    }

    /// Writes the user's file, readable by its owner.
    ///
    /// # Errors
    /// Exit code 2.
    pub fn write(&self) -> Result<(), CommandError> {
        let file = file().ok_or_else(|| {
            CommandError::input(anyhow!("there is no home directory: set {FILE_VARIABLE}"))
        })?;
        let mut bytes =
            serde_json::to_vec_pretty(self).or_input_error(|| "encoding contexts".to_owned())?;
        bytes.push(b'\n');
        atomic_files::write(&file, &bytes, Access::Secret, Existing::Replace)
    }

    /// The context of this name, or the current one.
    ///
    /// # Errors
    /// Exit code 2: there is none of this name.
    pub fn choose(&self, name: Option<&str>) -> Result<Option<&Context>, CommandError> {
        let Some(name) = name.or(self.current.as_deref()) else {
            return Ok(None);
        };
        match self.contexts.get(name) {
            Some(context) => Ok(Some(context)),
            None => Err(self.unknown(name)),
        }
    }

    /// The error for a name that is none of a context.
    pub fn unknown(&self, name: &str) -> CommandError {
        let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let known = match known.as_slice() {
            [] => "there are none, see `nixfleet context set --help`".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        CommandError::input(anyhow!("there is no context {name:?}; {known}"))
    }
}

/// The user's file; none without a home directory.
pub fn file() -> Option<PathBuf> {
    let folder = |variable| {
        let value = std::env::var_os(variable).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    folder(FILE_VARIABLE).or_else(|| {
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
        Some(config?.join("nixfleet/contexts.json"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_chosen_by_name_or_is_the_current_one() {
        let text = r#"{ "current": "prod", "contexts": {
            "prod": { "url": "https://p", "ca": "/ca", "cert": "/c", "key": "/k" },
            "test": { "url": "https://t", "ca": "/ca", "cert": "/c", "key": "/k" } } }"#;
        let contexts = Contexts::parse(Path::new("x"), text.as_bytes()).unwrap();
        let url = |name| contexts.choose(name).unwrap().unwrap().url.clone();
        assert_eq!(url(None), "https://p");
        assert_eq!(url(Some("test")), "https://t");
        let error = contexts.choose(Some("tset")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("there are prod, test"),
            "{error}"
        );
        assert!(Contexts::default().choose(None).unwrap().is_none());
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["", "7", r#"{"contexts":{"a":{}}}"#, r#"{"currant":"a"}"#] {
            let error = Contexts::parse(Path::new("/home/x"), text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("/home/x"), "{error}");
        }
    }
}
