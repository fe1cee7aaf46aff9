//! The machine under an agent.

use futures::future::BoxFuture;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, ProbeName};

use crate::core::{ProbeReading, RollbackOutcome, SwitchOutcome};

/// Switches closures and runs probes. Calls never return an error: failures are outcomes.
///
/// A dropped call may still take effect, as on a machine whose agent crashes.
pub trait Activator: Send + Sync + 'static {
    /// The running closure.
    fn current_closure(&self) -> BoxFuture<'_, ClosureHash>;

    /// Switch method that is recorded with an activation.
    fn switch_method(&self) -> &str;

    /// Switches to a closure.
    fn switch<'a>(&'a self, closure: &'a ClosureHash) -> BoxFuture<'a, SwitchOutcome>;

    /// Goes back to a closure.
    fn roll_back<'a>(&'a self, closure: &'a ClosureHash) -> BoxFuture<'a, RollbackOutcome>;

    /// The probes the host declares; `None` when they cannot be read.
    fn probes(&self) -> BoxFuture<'_, Option<Vec<ProbeDeclaration>>>;

    /// Runs one probe; a probe that cannot run has failed.
    fn probe<'a>(&'a self, name: &'a ProbeName) -> BoxFuture<'a, ProbeReading>;
}
