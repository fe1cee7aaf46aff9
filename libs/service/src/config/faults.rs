//! Faults of a configuration, and the rules that services share.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// All faults of a configuration; collected before any is reported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Dotted key.
    pub key: String,
    /// The fault and, when known, the layer that caused it.
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

    /// Adds a fault of `key` unless the value is in the range.
    pub fn require_range<T>(&mut self, key: &str, value: T, range: RangeInclusive<T>)
    where
        T: PartialOrd + Display,
    {
        if !range.contains(&value) {
            let (min, max) = range.into_inner();
            self.add(key, format!("must be between {min} and {max}"));
        }
    }

    /// Adds a fault of `key` unless the value is positive.
    pub fn require_positive<T: PartialOrd + Default>(&mut self, key: &str, value: T) {
        self.require(value > T::default(), key, "must be above 0");
    }

    /// Adds the faults that a library found in its own section, as pairs of key and message.
    pub fn add_section(
        &mut self,
        section: &str,
        faults: impl IntoIterator<Item = impl Into<(&'static str, String)>>,
    ) {
        for fault in faults {
            let (key, message) = fault.into();
            self.add(format!("{section}.{key}"), message);
        }
    }

    /// True while there are no faults.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults in the order in which they were found.
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
