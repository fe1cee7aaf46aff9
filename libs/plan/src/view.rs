//! The planner's view: the current release, every rollout with its hosts, quarantines, and pending actions.
//!
//! [`FleetView::load`] reads rows, [`FleetView::apply_outcome`] follows the output log. Outcomes carry
//! complete records, so that following the log computes no domain state.

mod apply_outcome;
mod budget_counts;
mod fleet;
mod held_partitions;
mod host;
mod hostname_maps;
mod load;
mod pending_actions;
mod rejected_action_key;
mod rollout;
mod unreadable_budgets;
mod wave_and_budgets;

pub use nixfleet_proto::PinnedSet;

pub use apply_outcome::ApplyOutcomeError;
pub(crate) use budget_counts::{BudgetId, limit};
pub use fleet::FleetView;
pub use host::{HostView, UNKNOWN_WAVE};
pub use hostname_maps::HostViews;
pub(crate) use hostname_maps::{HostnameMap, HostnameSet};
pub use load::LoadError;
pub use pending_actions::REJECTION_BACKOFF;
pub use rollout::RolloutView;
pub(crate) use rollout::WaveIndex;
