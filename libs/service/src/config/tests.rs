use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    instance: Option<String>,
    queue: Queue,
    strict: Strict,
    database: Database,
    limits: BTreeMap<String, u32>,
    telemetry: TelemetryConfig,
    admin: AdminConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    size: u32,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Queue {
    depth: u32,
    name: String,
    hosts: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Database {
    url: String,
    password: String,
    handle: String,
    url_file: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            queue: Queue {
                depth: 8,
                name: "main".into(),
                hosts: vec!["a".into()],
            },
            strict: Strict {
                size: 1,
                name: "s".into(),
            },
            database: Database::default(),
            limits: BTreeMap::new(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9999),
        }
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.require(self.queue.depth > 0, "queue.depth", "must be at least 1");
        self.telemetry.validate("telemetry", faults);
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn admin(&self) -> &AdminConfig {
        &self.admin
    }

    fn secret_keys() -> &'static [&'static str] {
        &["database.handle"]
    }
}

/// Loads a file with this text, these variables and these flags.
fn try_load(file: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Config, Faults> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service.toml");
    std::fs::write(&path, file).unwrap();
    load(&Sources {
        file: Some(path),
        env_prefix: "NIXFLEET_TEST__".into(),
        env: env
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect(),
        set: set.iter().map(|pair| (*pair).to_owned()).collect(),
    })
}

#[track_caller]
fn faults(file: &str, env: &[(&str, &str)], set: &[&str]) -> Vec<String> {
    try_load(file, env, set)
        .unwrap_err()
        .iter()
        .map(|fault| fault.key.clone())
        .collect()
}

#[test]
fn nothing_given_means_the_defaults() {
    assert_eq!(try_load("", &[], &[]).unwrap(), Config::default());
    let sources = Sources::default();
    assert_eq!(load::<Config>(&sources).unwrap(), Config::default());
}

#[test]
fn each_layer_wins_over_the_one_below_key_by_key() {
    let file = "[queue]\ndepth = 1\nname = \"file\"\nhosts = [\"f\"]\n";
    let env = [
        ("NIXFLEET_TEST__QUEUE__DEPTH", "2"),
        ("NIXFLEET_TEST__QUEUE__NAME", "env"),
    ];
    let config = try_load(file, &env, &["queue.depth=3"]).unwrap();
    assert_eq!(config.queue.depth, 3);
    assert_eq!(config.queue.name, "env");
    assert_eq!(config.queue.hosts, ["f"]);
}

#[test]
fn variables_of_other_programs_are_not_read() {
    let env = [("NIXFLEET_OTHER__QUEUE__DEPTH", "2"), ("PATH", "/bin")];
    assert_eq!(try_load("", &env, &[]).unwrap(), Config::default());
}

#[test]
fn lists_and_optional_values_come_from_the_environment_too() {
    let env = [
        ("NIXFLEET_TEST__QUEUE__HOSTS", "[\"x\", \"y\"]"),
        ("NIXFLEET_TEST__DATABASE__URL_FILE", "/run/url"),
        ("NIXFLEET_TEST__LIMITS__ANY_NAME", "7"),
    ];
    let config = try_load("", &env, &[]).unwrap();
    assert_eq!(config.queue.hosts, ["x", "y"]);
    assert_eq!(config.database.url_file.as_deref(), Some("/run/url"));
    assert_eq!(config.limits["any_name"], 7);
}

#[test]
fn a_text_that_looks_like_a_number_stays_a_text() {
    let env = [
        ("NIXFLEET_TEST__INSTANCE", "0107"),
        ("NIXFLEET_TEST__QUEUE__NAME", "true"),
    ];
    let config = try_load("", &env, &["database.password=1.50"]).unwrap();
    assert_eq!(config.instance.as_deref(), Some("0107"));
    assert_eq!(config.queue.name, "true");
    assert_eq!(config.database.password, "1.50");
}

#[test]
fn unknown_keys_are_faults_in_every_layer() {
    let file = "top = 1\n[queue]\ndeep = 1\n";
    let env = [("NIXFLEET_TEST__QUEUE__DETPH", "2")];
    let found = faults(file, &env, &["databse.url=x"]);
    assert_eq!(found, ["databse", "queue.deep", "queue.detph", "top"]);
}

#[test]
fn a_section_that_denies_unknown_keys_hides_no_other_fault() {
    let file = "[strict]\nsise = 1\nnmae = 2\nsize = \"x\"\n[queue]\ndepth = 0\n";
    let mut found = faults(file, &[], &[]);
    found.sort();
    assert_eq!(
        found,
        ["queue.depth", "strict.nmae", "strict.sise", "strict.size"]
    );
}

#[test]
fn all_faults_are_reported_at_once() {
    let file =
        "top = 1\n[queue]\ndepth = \"many\"\nname = 4\n[telemetry]\nlog_filter = \"a=b=c\"\n";
    let env = [("NIXFLEET_TEST__QUEUE__HOSTS", "x")];
    let mut found = faults(file, &env, &["nonsense"]);
    found.sort();
    let expected = [
        "(flags)",
        "queue.depth",
        "queue.hosts",
        "queue.name",
        "telemetry.log_filter",
        "top",
    ];
    assert_eq!(found, expected);
}

#[test]
fn faults_name_the_layer_that_caused_them() {
    let env = [("NIXFLEET_TEST__QUEUE__DEPTH", "many")];
    let error = try_load("", &env, &[]).unwrap_err().to_string();
    assert!(error.contains("NIXFLEET_TEST__QUEUE__DEPTH"), "{error}");
}

#[test]
fn a_broken_or_missing_file_does_not_hide_other_faults() {
    let env = [("NIXFLEET_TEST__QUEUE__DEPTH", "0")];
    assert_eq!(faults("= broken", &env, &[]), ["(file)", "queue.depth"]);
    let sources = Sources {
        file: Some("/nonexistent/service.toml".into()),
        ..Sources::default()
    };
    let error = load::<Config>(&sources).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/service.toml"), "{error}");
}

#[test]
fn secrets_are_not_printed() {
    let config = Config {
        database: Database {
            url: "postgres://fleet:hunter2@db:5432/fleet".into(),
            password: "hunter2".into(),
            handle: "hunter2".into(),
            url_file: Some("/run/secret".into()),
        },
        ..Config::default()
    };
    let printed = to_toml(&config);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("postgres://fleet:[redacted]@db:5432/fleet"));
    assert!(printed.contains("/run/secret"));
    let conninfo = Config {
        database: Database {
            url: "host=db password=hunter2 user=fleet".into(),
            ..Database::default()
        },
        ..Config::default()
    };
    assert!(!redacted(&conninfo).to_string().contains("hunter2"));
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let printed = to_toml(&Config::default());
    assert_eq!(try_load(&printed, &[], &[]).unwrap(), Config::default());
}

#[test]
fn a_value_outside_its_range_is_a_fault_that_names_the_bounds() {
    let mut faults = Faults::default();
    faults.require_range("a", 4_096, 1..=4_096);
    faults.require_range("b", 0.05, 0.1..=86_400.0);
    faults.require_range("c", f64::NAN, 0.0..=1.0);
    faults.require_positive("d", 1);
    faults.require_positive("e", 0);
    let messages: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
    let expected = [
        "must be between 0.1 and 86400",
        "must be between 0 and 1",
        "must be above 0",
    ];
    assert_eq!(messages, expected);
}
