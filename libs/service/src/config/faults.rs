//! What is wrong with a configuration.

/// Everything wrong with a configuration, collected before anything is reported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Dotted key.
    pub key: String,
    /// What is wrong and, when known, which layer said so.
    pub message: String,
}

impl Faults {
    /// Adds a fault of the dotted `key`.
    pub fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            key: key.into(),
            message: message.into(),
        });
    }

    /// Adds a fault of `key` unless the rule holds.
    pub fn require(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            self.add(key, message);
        }
    }

    /// Adds the faults of a section that lists its own, as pairs of key and message.
    pub fn add_section<K, M>(&mut self, section: &str, faults: impl IntoIterator<Item = (K, M)>)
    where
        K: std::fmt::Display,
        M: Into<String>,
    {
        for (key, message) in faults {
            self.add(format!("{section}.{key}"), message);
        }
    }

    /// True while nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} fault(s) in the configuration:", self.0.len())?;
        for fault in &self.0 {
            writeln!(f, "  {}: {}", fault.key, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
