//! What the planner knows: the current release, every rollout with its hosts, quarantines, and the
//! actions that are on their way through the log.
//!
//! Loaded from rows ([`FleetView::load`]), kept current by outcomes ([`FleetView::absorb`]). An
//! outcome carries next records, so following the log computes no domain state.

mod absorb;
mod attempt;
mod budget;
mod fleet;
mod host;
mod load;
mod overlay;
mod places;
mod rollout;
mod table;

pub use nixfleet_proto::PinnedSet;

pub use absorb::AbsorbError;
pub(crate) use budget::{BudgetId, limit};
pub use fleet::FleetView;
pub use host::{HostView, UNKNOWN_WAVE};
pub use load::LoadError;
pub use overlay::REFUSAL_PAUSE;
pub use rollout::RolloutView;
pub(crate) use rollout::WaveIndex;
pub use table::Hosts;
pub(crate) use table::{ByHost, HostSet};
