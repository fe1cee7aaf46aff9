//! Message ids: a retried publish keeps its id, and two processes never use the same id.

use std::sync::atomic::{AtomicU64, Ordering};

/// Message ids of one process.
#[derive(Debug)]
pub struct MessageIds {
    process: String,
    counter: AtomicU64,
}

impl MessageIds {
    /// Ids with this prefix, which consists of a name and a part that is unique to the process.
    pub fn new(name: &str, unique: &str) -> Self {
        Self {
            process: format!("{name}/{unique}"),
            counter: AtomicU64::new(0),
        }
    }

    /// The next id.
    pub fn next(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}/{number}", self.process)
    }

    /// The prefix of all ids of this process.
    pub fn process(&self) -> &str {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_process_differ() {
        let ids = MessageIds::new("ingest/a", "x7");
        assert_eq!(ids.next(), "ingest/a/x7/0");
        assert_eq!(ids.next(), "ingest/a/x7/1");
    }
}
