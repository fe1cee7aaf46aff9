//! Hydration: rows or a checkpoint, and the frames behind them, become the state at the barrier.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{Message, decode_output};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Origin, PartitionSnapshot};
use nixfleet_proto::{Checkpoints, Decision, ManifestHash, OutputFrame};

use super::request::{TakeoverRequest, TakeoverResponse};
use super::state_source::StateSource;
use crate::input::pinned_manifests::PinnedManifests;
use crate::ownership::ownership_end::OwnershipEnd;

#[derive(Debug)]
pub(super) struct Hydration {
    /// The rows, until their manifests are fetched.
    rows: Option<PartitionSnapshot>,
    state: PartitionState,
    pinned: PinnedManifests,
    origin: Origin,
    checkpoints: Checkpoints,
    /// First output sequence that is not read.
    next: u64,
    /// Frames that wait for manifests they name.
    read: VecDeque<(u64, OutputFrame)>,
}

/// Result of a hydration.
#[derive(Debug)]
pub(super) struct HydrationResult {
    pub state: PartitionState,
    pub pinned: PinnedManifests,
    pub origin: Origin,
    pub checkpoints: Checkpoints,
}

impl Hydration {
    /// Starts with rows or a checkpoint; frames follow from `output_from` on.
    pub fn new(
        source: StateSource,
        origin: Origin,
        output_from: u64,
    ) -> Result<Self, OwnershipEnd> {
        let checkpoints = source.cursor().map(|cursor| cursor.checkpoints.clone());
        let (rows, state) = match source {
            StateSource::Rows(rows) => (Some(rows), PartitionState::new()),
            StateSource::Checkpoint(checkpoint) => (None, checkpoint.state),
        };
        let mut hydration = Self {
            rows,
            state,
            checkpoints: checkpoints.unwrap_or_default(),
            pinned: PinnedManifests::new(),
            origin,
            next: output_from,
            read: VecDeque::new(),
        };
        hydration.advance()?;
        Ok(hydration)
    }

    /// The next request on the way to the frame `to`.
    pub fn next_request(&self, to: u64) -> TakeoverRequest {
        if let Some(hash) = self.missing_manifest() {
            return TakeoverRequest::Manifest(hash.clone());
        }
        let from = self.next;
        if from <= to {
            return TakeoverRequest::Frames { from, to };
        }
        TakeoverRequest::Done
    }

    /// Takes the response to [`Hydration::next_request`].
    pub fn give(&mut self, answer: TakeoverResponse, to: u64) -> Result<(), OwnershipEnd> {
        match (self.missing_manifest().cloned(), answer) {
            (Some(hash), TakeoverResponse::Manifest(fetched)) => self.pinned.add(hash, fetched)?,
            (None, TakeoverResponse::Frames(messages)) => {
                // Only another owner publishes behind the barrier.
                if messages.iter().any(|message| message.seq > to) {
                    return Err(OwnershipEnd::Fenced);
                }
                for message in &messages {
                    self.read(message)?;
                }
            }
            (_, answer) => {
                let fault =
                    anyhow!("{answer:?} is not the response to the request of the hydration");
                return Err(OwnershipEnd::Failed(fault));
            }
        }
        self.advance()
    }

    /// The result, unless rows or frames wait.
    pub fn finish(self) -> Option<HydrationResult> {
        let is_complete = self.rows.is_none() && self.read.is_empty();
        is_complete.then_some(HydrationResult {
            state: self.state,
            pinned: self.pinned,
            origin: self.origin,
            checkpoints: self.checkpoints,
        })
    }

    fn missing_manifest(&self) -> Option<&ManifestHash> {
        if let Some(rows) = &self.rows {
            let bare = rows.rollouts.iter().filter(|row| row.pinned.is_none());
            let mut named = bare.map(|row| &row.manifest_hash);
            return named.find(|hash| self.pinned.is_missing(hash));
        }
        let (_, frame) = self.read.front()?;
        opened(frame).find(|hash| self.pinned.is_missing(hash))
    }

    fn read(&mut self, message: &Message) -> Result<(), OwnershipEnd> {
        let (seq, wanted) = (message.seq, self.next);
        if seq < wanted {
            return Ok(());
        }
        if seq > wanted {
            let fault = anyhow!("the output log has a gap: expected sequence {wanted}, got {seq}");
            return Err(OwnershipEnd::Halted(fault));
        }
        let frame = decode_output(message)
            .with_context(|| {
                format!("output frame {seq} cannot be read: see recovery-output-log-damaged.md")
            })
            .map_err(OwnershipEnd::Halted)?;
        self.next = seq + 1;
        self.read.push_back((seq, frame));
        Ok(())
    }

    /// Applies the rows and frames whose manifests are fetched.
    fn advance(&mut self) -> Result<(), OwnershipEnd> {
        if self.missing_manifest().is_none()
            && let Some(rows) = self.rows.take()
        {
            self.state = PartitionState::restore(rows, self.pinned.set())
                .context("restoring the state from the rows")
                .map_err(OwnershipEnd::Halted)?;
        }
        while self.rows.is_none() && self.missing_manifest().is_none() {
            let Some((seq, frame)) = self.read.pop_front() else {
                break;
            };
            self.absorb(&frame)
                .map_err(|ended| ended.context_if_halted(format!("absorbing frame {seq}")))?;
        }
        Ok(())
    }

    fn absorb(&mut self, frame: &OutputFrame) -> Result<(), OwnershipEnd> {
        self.origin.follow(frame).map_err(OwnershipEnd::halted)?;
        self.checkpoints.follow(frame.checkpoints.as_ref());
        let is_partial = self.origin.is_partial();
        for outcome in &frame.outcomes {
            let absorbed = if is_partial {
                self.state
                    .apply_outcome_skipping_unknown(outcome, self.pinned.set())
            } else {
                self.state.apply_outcome(outcome, self.pinned.set())
            };
            absorbed.map_err(OwnershipEnd::halted)?;
        }
        // A state without the beginning of the log cannot have the hash of a complete one.
        if let (Some(expected), false) = (&frame.state_hash, is_partial) {
            let actual = self.state.hash();
            if actual != *expected {
                return Err(OwnershipEnd::Halted(anyhow!(
                    "the rows and frames give the state {actual}, its owner had {expected}: drop \
                     the schema, so that the rows are written again from the log"
                )));
            }
        }
        Ok(())
    }
}

/// Manifests of the rollouts that a frame opens, each once.
fn opened(frame: &OutputFrame) -> impl Iterator<Item = &ManifestHash> {
    let opened: BTreeSet<_> = frame
        .outcomes
        .iter()
        .filter_map(|outcome| match &outcome.decision {
            Decision::Accepted(accepted) => Some(&accepted.opened.as_ref()?.manifest_hash),
            Decision::Rejected(_) => None,
        })
        .collect();
    opened.into_iter()
}
