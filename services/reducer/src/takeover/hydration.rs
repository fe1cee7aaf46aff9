//! Rows and the frames behind them, on the way to the state at the barrier.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{Message, decode_output};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Origin, PartitionSnapshot};
use nixfleet_proto::{Checkpoints, Decision, ManifestHash, OutputFrame};

use super::base::Source;
use super::need::{Answer, Need};
use crate::ended::Ended;
use crate::pins::Pins;

/// A state in the making.
#[derive(Debug)]
pub(super) struct Hydration {
    /// Until what they pin is at hand.
    rows: Option<PartitionSnapshot>,
    state: PartitionState,
    pins: Pins,
    origin: Origin,
    checkpoints: Checkpoints,
    /// First output sequence that was not read.
    next: u64,
    /// Frames that were read and wait for what they open.
    read: VecDeque<(u64, OutputFrame)>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Hydrated {
    pub state: PartitionState,
    pub pins: Pins,
    pub origin: Origin,
    pub checkpoints: Checkpoints,
}

impl Hydration {
    /// Begins with rows or a checkpoint; frames follow from `output_from` on.
    pub fn new(source: Source, origin: Origin, output_from: u64) -> Result<Self, Ended> {
        let checkpoints = source.cursor().map(|cursor| cursor.checkpoints.clone());
        let (rows, state) = match source {
            Source::Rows(rows) => (Some(rows), PartitionState::new()),
            Source::Checkpoint(base) => (None, base.state),
        };
        let mut hydration = Self {
            rows,
            state,
            checkpoints: checkpoints.unwrap_or_default(),
            pins: Pins::new(),
            origin,
            next: output_from,
            read: VecDeque::new(),
        };
        hydration.go_on()?;
        Ok(hydration)
    }

    /// What is lacking to be at the frame `to`.
    pub fn need(&self, to: u64) -> Need {
        if let Some(hash) = self.lacking() {
            return Need::Manifest(hash.clone());
        }
        let from = self.next;
        if from <= to {
            return Need::Frames { from, to };
        }
        Need::Nothing
    }

    /// Takes what was lacking to be at the frame `to`.
    pub fn give(&mut self, answer: Answer, to: u64) -> Result<(), Ended> {
        match (self.lacking().cloned(), answer) {
            (Some(hash), Answer::Manifest(fetched)) => self.pins.give(hash, fetched)?,
            (None, Answer::Frames(messages)) => {
                // Behind the barrier only another owner publishes.
                if messages.iter().any(|message| message.seq > to) {
                    return Err(Ended::Fenced);
                }
                for message in &messages {
                    self.read(message)?;
                }
            }
            (_, answer) => {
                let fault = anyhow!("{answer:?} is not what the hydration lacks");
                return Err(Ended::Failed(fault));
            }
        }
        self.go_on()
    }

    /// The state, unless something is lacking.
    pub fn finish(self) -> Option<Hydrated> {
        let whole = self.rows.is_none() && self.read.is_empty();
        whole.then_some(Hydrated {
            state: self.state,
            pins: self.pins,
            origin: self.origin,
            checkpoints: self.checkpoints,
        })
    }

    /// The first manifest that has to be fetched.
    fn lacking(&self) -> Option<&ManifestHash> {
        if let Some(rows) = &self.rows {
            let bare = rows.rollouts.iter().filter(|row| row.pinned.is_none());
            let mut named = bare.map(|row| &row.manifest_hash);
            return named.find(|hash| self.pins.lacks(hash));
        }
        let (_, frame) = self.read.front()?;
        opened(frame).find(|hash| self.pins.lacks(hash))
    }

    fn read(&mut self, message: &Message) -> Result<(), Ended> {
        let (seq, wanted) = (message.seq, self.next);
        if seq < wanted {
            return Ok(());
        }
        if seq > wanted {
            let fault = anyhow!("the output log has a hole: wanted {wanted}, got {seq}");
            return Err(Ended::Halted(fault));
        }
        let frame = decode_output(message)
            .with_context(|| format!("reading output frame {seq}"))
            .map_err(Ended::Halted)?;
        self.next = seq + 1;
        self.read.push_back((seq, frame));
        Ok(())
    }

    /// Does everything for which nothing is lacking.
    fn go_on(&mut self) -> Result<(), Ended> {
        if self.lacking().is_none()
            && let Some(rows) = self.rows.take()
        {
            self.state = PartitionState::restore(rows, self.pins.set())
                .context("restoring the state from the rows")
                .map_err(Ended::Halted)?;
        }
        while self.rows.is_none() && self.lacking().is_none() {
            let Some((seq, frame)) = self.read.pop_front() else {
                break;
            };
            self.apply_outcome(&frame)
                .map_err(|ended| ended.context_if_halted(format!("absorbing frame {seq}")))?;
        }
        Ok(())
    }

    fn apply_outcome(&mut self, frame: &OutputFrame) -> Result<(), Ended> {
        self.origin.follow(frame).map_err(Ended::halted)?;
        self.checkpoints.follow(frame.checkpoints.as_ref());
        let is_partial = self.origin.is_partial();
        for outcome in &frame.outcomes {
            let absorbed = if is_partial {
                self.state
                    .apply_outcome_skipping_unknown(outcome, self.pins.set())
            } else {
                self.state.apply_outcome(outcome, self.pins.set())
            };
            absorbed.map_err(Ended::halted)?;
        }
        // A state that lacks what came before the log cannot have the hash of one that does not.
        if let (Some(expected), false) = (&frame.state_hash, is_partial) {
            let actual = self.state.hash();
            if actual != *expected {
                return Err(Ended::Halted(anyhow!(
                    "the rows and frames give the state {actual}, its owner had {expected}: drop \
                     the schema, so that the rows are written again from the log"
                )));
            }
        }
        Ok(())
    }
}

/// Manifests that a frame opens rollouts with, each once.
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
