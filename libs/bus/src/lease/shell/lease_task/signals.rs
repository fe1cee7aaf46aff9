//! Signals of the core, passed to the workers that wait for a key or hold it.

use tokio_util::sync::CancellationToken;

use super::{HeldLease, InstanceId, Lease, LeaseTask, Loss, Signal};

impl LeaseTask {
    pub(super) fn signal(&mut self, signal: Signal) {
        let service = self.service.as_str();
        match signal {
            Signal::Acquired(key) => self.acquired(&key),
            Signal::Recalled(key) => {
                self.count("recalled");
                tracing::info!(service, key, "lease recalled");
                if let Some(held) = self.waiters.get(&key).and_then(|entry| entry.held.as_ref()) {
                    held.recalled.cancel();
                }
            }
            Signal::Lost(key, loss) => {
                self.count("lost");
                let reason = reason(loss);
                tracing::warn!(service, key, reason, "lease lost");
                self.end(&key);
            }
            Signal::Released(key) => {
                self.count("released");
                tracing::info!(service, key, "lease released");
                self.end(&key);
            }
            Signal::Joined => {
                tracing::info!(
                    service,
                    instance = self.writer.instance,
                    "joined the service"
                );
                self.bus.set_membership_fault(service, None);
            }
            Signal::NameTaken(other) => self.name_taken(other),
        }
    }

    fn acquired(&mut self, key: &str) {
        self.count("acquired");
        tracing::info!(service = self.service, key, "lease acquired");
        self.last_number += 1;
        let number = self.last_number;
        let (lost, recalled) = (CancellationToken::new(), CancellationToken::new());
        let done = CancellationToken::new();
        let mut lease = Lease {
            key: key.to_owned(),
            number,
            lost: lost.clone(),
            recalled: recalled.clone(),
            done: done.clone(),
            requests: self.sender.clone(),
        };
        let Some(entry) = self.waiters.get_mut(key) else {
            return;
        };
        let _done = done.drop_guard();
        entry.held = Some(HeldLease {
            number,
            lost,
            recalled,
            _done,
        });
        // A lease without a waiter is released when it is dropped.
        while let Some(waiting) = entry.waiting.pop_front() {
            match waiting.send(lease) {
                Ok(()) => return,
                Err(back) => lease = back,
            }
        }
    }

    fn end(&mut self, key: &str) {
        if let Some(held) = self
            .waiters
            .get_mut(key)
            .and_then(|entry| entry.held.take())
        {
            held.lost.cancel();
        }
    }

    fn name_taken(&self, other: Option<InstanceId>) {
        let process = other.map_or_else(|| "unknown".to_owned(), |other| other.process);
        let instance = &self.writer.instance;
        tracing::error!(
            service = self.service,
            instance,
            other = process,
            "another process lives under the name of this instance; this one takes no work until \
             that one is gone. Give every instance a name of its own"
        );
        let reason = format!(
            "the instance name {instance} is taken by the process {process}; give every instance a \
             name of its own"
        );
        self.bus.set_membership_fault(&self.service, Some(reason));
    }

    fn count(&self, change: &'static str) {
        metrics::counter!("nixfleet_lease_changes_total",
            "service" => self.service.clone(), "change" => change)
        .increment(1);
    }
}

fn reason(loss: Loss) -> &'static str {
    match loss {
        Loss::Late => "it could not be renewed in time",
        Loss::Taken => "another instance holds it",
        Loss::Gone => "its record is gone",
        Loss::Overdue => "the work did not end in time after the recall",
    }
}
