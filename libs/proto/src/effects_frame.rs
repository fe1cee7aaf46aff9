//! Output frames reduced to their effects: readers that need no records skip them, which are most of a
//! frame.
//!
//! Source: docs/wire-protocol.md, frames.

use serde::Deserialize;

use crate::outcome::Effect;
use crate::position::InputMark;
use crate::{Timestamp, time};

/// An output frame without the records of its outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectsFrame {
    /// Layout version.
    pub v: u32,
    /// Last folded input.
    #[serde(default)]
    pub last_input: Option<InputMark>,
    /// As in [`crate::OutputFrame::outcomes`].
    pub outcomes: Vec<OutcomeEffects>,
}

/// The effects of one outcome; a rejected one has none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OutcomeEffects {
    /// Fold time.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// Effects of an accepted entry.
    #[serde(default)]
    pub accepted: AcceptedEffects,
}

/// The effects of an accepted entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AcceptedEffects {
    /// In order.
    pub effects: Vec<Effect>,
}
