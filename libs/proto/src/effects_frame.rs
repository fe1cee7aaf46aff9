//! Output frames for those who follow effects alone: records, which are most of a frame, are passed
//! over unread.
//!
//! Source: docs/wire-protocol.md, frames.

use serde::Deserialize;

use crate::outcome::Effect;
use crate::position::InputMark;
use crate::{Timestamp, time};

/// An output frame without what its outcomes made of records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectsFrame {
    /// Layout version.
    pub v: u32,
    /// Everything up to here is folded.
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
    /// What an accepted entry changed.
    #[serde(default)]
    pub accepted: AcceptedEffects,
}

/// What else follows an accepted entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AcceptedEffects {
    /// In order.
    pub effects: Vec<Effect>,
}
