//! Hash tables by hostname: in a fleet of a million hosts, ordered lookups cost more than the rest of a
//! plan.
//!
//! The hash has a fixed seed. Nothing iterates over [`HostnameMap`] and [`HostnameSet`], whose order is arbitrary;
//! [`HostViews`] iterates in insertion order.

use foldhash::fast::FixedState;
use nixfleet_proto::Hostname;

use super::host::HostView;

/// Map by hostname, for lookups only.
pub(crate) type HostnameMap<T> = hashbrown::HashMap<Hostname, T, FixedState>;
/// Set of hosts, for lookups only.
pub(crate) type HostnameSet = hashbrown::HashSet<Hostname, FixedState>;
/// Set of hosts in insertion order, until the first removal.
pub(crate) type HostList = indexmap::IndexSet<Hostname, FixedState>;
/// The hosts of a rollout, in insertion order.
pub type HostViews = indexmap::IndexMap<Hostname, HostView, FixedState>;
