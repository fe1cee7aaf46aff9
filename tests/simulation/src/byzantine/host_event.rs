//! What happens to a host under attack.

use nixfleet_agent::core::Input;
use nixfleet_proto::{ClosureHash, RolloutId};

use super::answer::{Artifacts, Offer};

/// Something that happens to a host. Events of an agent carry its life, so that those of an earlier life
/// are dropped.
#[derive(Debug)]
pub enum HostEvent {
    /// The agent starts.
    Start,
    /// A deadline of the agent.
    Tick(u32),
    /// An input for the agent.
    Input(u32, Box<Input>),
    /// Artifacts arrived, or none.
    ArtifactsArrive(u32, RolloutId, Option<Box<Artifacts>>),
    /// A long-poll ended.
    PollEnds(u32, Option<Box<Offer>>),
    /// The pause after a long-poll is over.
    Poll(u32),
    /// The machine finishes a switch, whether or not the agent still runs.
    SwitchFinished(u32, RolloutId, ClosureHash),
    /// The machine finishes a rollback.
    RollbackFinished(u32, RolloutId, ClosureHash),
    /// Something bad from outside.
    Fault(HostFault),
    /// The machine boots what is staged.
    Reboot,
}

/// What goes wrong with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFault {
    /// The agent crashes and starts again.
    Crash,
    /// The machine loses power.
    PowerLoss,
    /// The disk of the agent is lost with its journals.
    LostDisk,
    /// The machine is installed again.
    Reinstallation,
}
