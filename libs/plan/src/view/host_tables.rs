//! Tables by hostname: a plan asks for the same few facts of each host it looks at, and in a fleet of
//! a million hosts a search by name costs more than everything else a plan does.
//!
//! The hash has a fixed seed. [`ByHost`] and [`HostSet`] are never walked, their order is no order;
//! [`HostViews`] is walked in the order in which hosts were added.

use foldhash::fast::FixedState;
use nixfleet_proto::Hostname;

use super::host::HostView;

/// What is known by hostname, for lookups only.
pub(crate) type ByHost<T> = hashbrown::HashMap<Hostname, T, FixedState>;
/// Some hosts, for lookups only.
pub(crate) type HostSet = hashbrown::HashSet<Hostname, FixedState>;
/// Some hosts, in the order in which they were added as long as none is taken out.
pub(crate) type HostList = indexmap::IndexSet<Hostname, FixedState>;
/// The hosts of a rollout, in the order in which they were added.
pub type HostViews = indexmap::IndexMap<Hostname, HostView, FixedState>;
