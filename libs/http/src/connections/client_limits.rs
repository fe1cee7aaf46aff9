//! Bounds that all connections of one client share, so that no client takes the room of the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::access::identity::{Identity, Role};
use crate::config::LimitsConfig;

/// Room of one client, over all its connections.
#[derive(Debug)]
pub struct Client {
    /// For requests worked on.
    pub requests: Arc<Semaphore>,
    /// For waiting dispatch requests.
    pub polls: Arc<Semaphore>,
}

impl Client {
    pub fn new(limits: &LimitsConfig) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(limits.requests_per_client)),
            polls: Arc::new(Semaphore::new(limits.polls_per_client)),
        }
    }
}

#[derive(Debug)]
pub struct Clients {
    limits: LimitsConfig,
    open: Mutex<HashMap<Key, Open>>,
}

type Key = (Role, Arc<str>);

#[derive(Debug)]
struct Open {
    client: Arc<Client>,
    connections: usize,
}

impl Clients {
    pub fn new(limits: &LimitsConfig) -> Arc<Self> {
        Arc::new(Self {
            limits: limits.clone(),
            open: Mutex::default(),
        })
    }

    /// Takes a connection in; `None` when its client has too many.
    pub fn connect(self: &Arc<Self>, identity: &Identity) -> Option<ConnectionSlot> {
        let key = (identity.role, Arc::clone(&identity.name));
        let mut open = self.lock();
        let of_client = open.entry(key.clone()).or_insert_with(|| Open {
            client: Arc::new(Client::new(&self.limits)),
            connections: 0,
        });
        if of_client.connections >= self.limits.connections_per_client {
            return None;
        }
        of_client.connections += 1;
        Some(ConnectionSlot {
            client: Arc::clone(&of_client.client),
            clients: Arc::clone(self),
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Open>> {
        // No panic can happen half-way through a change of the map.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of a client; dropping it gives the slot back.
#[derive(Debug)]
pub struct ConnectionSlot {
    pub client: Arc<Client>,
    clients: Arc<Clients>,
    key: Key,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.clients.lock();
        if let Slot::Occupied(mut slot) = open.entry(self.key.clone()) {
            slot.get_mut().connections -= 1;
            if slot.get().connections == 0 {
                slot.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::identity_of;

    fn identity(role: Role, name: &str) -> Identity {
        Identity {
            name: name.into(),
            ..identity_of(role)
        }
    }

    #[test]
    fn a_client_has_so_many_connections_and_leaves_nothing_behind() {
        let limits = LimitsConfig {
            connections_per_client: 2,
            ..LimitsConfig::default()
        };
        let clients = Clients::new(&limits);
        let agent = identity(Role::Agent, "a");
        let first = clients.connect(&agent).unwrap();
        let second = clients.connect(&agent).unwrap();
        assert!(Arc::ptr_eq(&first.client, &second.client));
        assert!(clients.connect(&agent).is_none());
        let operator = clients.connect(&identity(Role::Operator, "a")).unwrap();
        drop(first);
        let third = clients.connect(&agent).unwrap();
        drop((second, third, operator));
        assert!(clients.lock().is_empty());
    }
}
