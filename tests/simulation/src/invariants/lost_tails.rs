//! Once an outcome of a lost entry is published or applied, no entry in its place gets an outcome, and a
//! service reports the loss.
//!
//! Without an outcome of a lost entry, the log goes on without the lost entries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{InputMark, OutputFrame, Position};

use super::folded_entry::CheckResult;
use crate::reference_fold::{Folded, ReferenceFold};
use crate::simulated_servers::stream::{StoredMessage, Stream};
use crate::simulated_servers::{Broker, Database, LogId};

/// Lost ends of logs.
#[derive(Debug, Default)]
pub struct LostTails {
    touched: BTreeSet<Partition>,
    lost: BTreeMap<Partition, Tail>,
}

#[derive(Debug)]
struct Tail {
    /// Message ids of the lost inputs, by sequence.
    ids: BTreeMap<u64, String>,
    /// Lost messages that a retried publish may store again at their sequences.
    missing: VecDeque<Rc<StoredMessage>>,
    /// The fold with the lost entries.
    before: Folded,
    history: History,
}

#[derive(Debug, Clone, Copy)]
enum History {
    /// Without the lost entries; true once an outcome of an entry in their place is published.
    Discarded(bool),
    /// With the lost entries up to this sequence at least.
    Kept(u64),
}

/// What to do with a stored input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputAction {
    /// It is the next entry.
    Fold,
    /// It may not get an outcome.
    Skip,
    /// It is the last lost entry with an outcome, stored again; the log goes on after it.
    Resume,
}

impl LostTails {
    /// The end of a log was lost. True when the reference dropped the lost entries.
    pub fn lose(
        &mut self,
        partition: Partition,
        lost: Vec<Rc<StoredMessage>>,
        needed: u64,
        reference: &mut ReferenceFold,
    ) -> bool {
        self.touched.insert(partition);
        let Some(first) = lost.first().map(|message| message.seq) else {
            return false;
        };
        let has_unresolved_loss = needed >= first;
        let tail = Tail {
            ids: lost.iter().map(|m| (m.seq, m.msg_id.clone())).collect(),
            missing: lost.into(),
            before: reference.folded(partition),
            history: if has_unresolved_loss {
                History::Kept(needed)
            } else {
                History::Discarded(false)
            },
        };
        self.lost.insert(partition, tail);
        if !has_unresolved_loss {
            reference.truncate(partition, first - 1);
        }
        !has_unresolved_loss
    }

    /// True when a log of the partition lost its end.
    pub fn touches(&self, partition: Partition) -> bool {
        self.touched.contains(&partition)
    }

    /// True when the end of any log was lost.
    pub fn is_any(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Decides about an input before it is folded.
    pub fn input(
        &mut self,
        partition: Partition,
        message: &StoredMessage,
        reference: &mut ReferenceFold,
    ) -> InputAction {
        let Some(tail) = self.lost.get_mut(&partition) else {
            return InputAction::Fold;
        };
        let is_back = tail
            .missing
            .front()
            .is_some_and(|lost| lost.seq == message.seq && lost.msg_id == message.msg_id);
        if is_back {
            tail.missing.pop_front();
        } else {
            tail.missing.clear();
        }
        match tail.history {
            History::Discarded(_) => InputAction::Fold,
            History::Kept(needed) => {
                if is_back && message.seq >= needed {
                    // Every lost entry with an outcome is stored again.
                    reference.replace(partition, tail.before.clone());
                    reference.truncate(partition, message.seq);
                    tail.history = History::Discarded(false);
                    return InputAction::Resume;
                }
                InputAction::Skip
            }
        }
    }

    /// Checks a frame before it is compared with the reference.
    ///
    /// # Errors
    /// Names the entry that is answered in both histories.
    pub fn output(
        &mut self,
        partition: Partition,
        frame: &OutputFrame,
        reference: &mut ReferenceFold,
    ) -> CheckResult {
        let Some(tail) = self.lost.get_mut(&partition) else {
            return Ok(());
        };
        let covered = frame.last_input.map_or(0, |mark| mark.seq);
        if let History::Kept(needed) = tail.history {
            tail.history = History::Kept(needed.max(covered));
            return Ok(());
        }
        for outcome in &frame.outcomes {
            let position = outcome.position;
            if reference.outcome(partition, position) == Some(outcome) {
                if tail.ids.contains_key(&position.seq) {
                    tail.history = History::Discarded(true);
                }
            } else if tail.before.outcome(position) == Some(outcome) {
                return tail.tear(partition, covered, reference);
            }
        }
        Ok(())
    }

    /// Checks a cursor that was written.
    ///
    /// # Errors
    /// Names the entry that is answered in both histories.
    pub fn applied(
        &mut self,
        partition: Partition,
        cursor: &Cursor,
        reference: &mut ReferenceFold,
    ) -> CheckResult {
        let (Some(tail), Some(mark)) = (self.lost.get_mut(&partition), cursor.input) else {
            return Ok(());
        };
        let (seq, index) = (mark.seq, mark.index);
        let position = Position { seq, index };
        let is_lost = tail.ids.get(&seq) == cursor.input_msg_id.as_ref()
            && tail.ids.contains_key(&seq)
            && reference.outcome(partition, position) != tail.before.outcome(position);
        match tail.history {
            History::Kept(needed) => tail.history = History::Kept(needed.max(mark.seq)),
            History::Discarded(_) if is_lost => return tail.tear(partition, mark.seq, reference),
            History::Discarded(_) => {}
        }
        Ok(())
    }
}

impl Tail {
    /// A lost entry has an outcome.
    fn tear(
        &mut self,
        partition: Partition,
        to: u64,
        reference: &mut ReferenceFold,
    ) -> CheckResult {
        if matches!(self.history, History::Discarded(true)) {
            return Err(format!(
                "lost entries of {partition} up to {to} have outcomes, and so have entries in their place"
            ));
        }
        reference.replace(partition, self.before.clone());
        self.history = History::Kept(to);
        Ok(())
    }
}

/// How far the last frame and the rows cover the input log.
pub fn covered(partition: Partition, broker: &Broker, database: &Database) -> u64 {
    let last = broker
        .stream(LogId::Output(partition))
        .and_then(Stream::last);
    let framed = last.and_then(|message| message.output()?.last_input);
    let applied = database.cursor(partition).and_then(|cursor| cursor.input);
    let marks = framed.into_iter().chain(applied);
    marks.map(|mark| mark.seq).max().unwrap_or(0)
}

/// True while frames, rows or the archive depend on messages that the logs have lost.
pub fn has_unresolved_loss(partition: Partition, broker: &Broker, database: &Database) -> bool {
    let input = broker.stream(LogId::Input(partition));
    let output = broker.stream(LogId::Output(partition));
    let (Some(input), Some(output)) = (input, output) else {
        return false;
    };
    let frame = output.last().and_then(|message| message.output());
    let is_ahead = frame.is_some_and(|frame| {
        let id = frame.last_input_id.as_deref();
        is_lost(frame.last_input, id, input)
    });
    let is_archived = |log, stream: &Stream| {
        let mark = database.archive_mark(log);
        mark.is_some_and(|mark| mark.created == stream.created() && mark.seq > stream.last_seq())
    };
    if is_archived(LogId::Input(partition), input) || is_archived(LogId::Output(partition), output)
    {
        return true;
    }
    let cursor = database.cursor(partition);
    is_ahead || cursor.is_some_and(|cursor| is_apart(cursor, input, output))
}

fn is_apart(cursor: &Cursor, input: &Stream, output: &Stream) -> bool {
    let id = cursor.input_msg_id.as_deref();
    if cursor.out_seq > output.last_seq() || is_lost(cursor.input, id, input) {
        return true;
    }
    // The same sequence, with another frame than the applied one.
    let applied = output.get(cursor.out_seq);
    let applied = applied.and_then(|message| message.output());
    applied.is_some_and(|frame| frame.last_input != cursor.input)
}

fn is_lost(mark: Option<InputMark>, id: Option<&str>, input: &Stream) -> bool {
    let Some(mark) = mark else {
        return false;
    };
    let held = input.get(mark.seq).map(|message| message.msg_id.as_str());
    mark.seq > input.last_seq() || (id.is_some() && held.is_some() && id != held)
}
