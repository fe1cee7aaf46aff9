//! An output frame, cut where its outcomes begin.

use std::collections::BTreeMap;

use nixfleet_proto::{InputMark, json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The field of the outcomes, as writers of frames write it: the last one.
const OUTCOMES: &str = "\"outcomes\":[";

/// How much of a frame is looked at. Most of it are its outcomes, and the database checks each document
/// that it is given once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Not the outcomes of a frame that looks as its writers write it: the database refuses what are none.
    Quick,
    /// All of it.
    Full,
}

/// What has to be known of an output frame to find an outcome in it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Version of the layout.
    pub v: u32,
    /// How far the frame covers the input.
    #[serde(default)]
    pub last_input: Option<InputMark>,
}

/// The parts of a frame.
#[derive(Debug, PartialEq)]
pub struct Frame<'a> {
    /// What is known of it.
    pub head: Head,
    /// The frame without its outcomes.
    pub around: String,
    /// Their array; absent when there are none.
    pub outcomes: Option<&'a str>,
}

impl<'a> Frame<'a> {
    /// Takes a frame apart.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(payload: &'a [u8], reading: Reading) -> Result<Self, String> {
        let quick = match reading {
            Reading::Quick => std::str::from_utf8(payload).ok().and_then(cut),
            Reading::Full => None,
        };
        quick.map_or_else(|| read_all(payload), Ok)
    }

    /// `outcomes` is the text of an array.
    fn new(head: Head, around: String, outcomes: &'a str) -> Self {
        let is_empty = outcomes[1..].trim_ascii_start().starts_with(']');
        Self {
            head,
            around,
            outcomes: (!is_empty).then_some(outcomes),
        }
    }
}

/// Cuts a frame whose last field its outcomes are. What is before them is read: it is an object by itself
/// only when the field is one of the frame, and in no text.
fn cut(frame: &str) -> Option<Frame<'_>> {
    let at = frame.find(OUTCOMES)?;
    let outcomes = frame[at + OUTCOMES.len() - 1..].strip_suffix('}')?;
    let around = format!("{}}}", frame[..at].strip_suffix(',')?);
    let head = serde_json::from_str(&around).ok()?;
    // What is no array is refused by the database, but for one that ends at once.
    let is_array = outcomes == "[]" || outcomes.starts_with("[{") && outcomes.ends_with("}]");
    is_array.then(|| Frame::new(head, around, outcomes))
}

fn read_all(payload: &[u8]) -> Result<Frame<'_>, String> {
    let failed = |error: serde_json::Error| error.to_string();
    let mut around: BTreeMap<String, &RawValue> = json::read(payload).map_err(failed)?;
    let outcomes = around
        .remove("outcomes")
        .ok_or("there is no field outcomes")?
        .get();
    if !outcomes.starts_with('[') {
        return Err("outcomes is no array".to_owned());
    }
    let around = serde_json::to_string(&around).map_err(failed)?;
    let head = serde_json::from_str(&around).map_err(failed)?;
    Ok(Frame::new(head, around, outcomes))
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{OutputFrame, Position};

    use super::*;

    fn written() -> String {
        let frame = OutputFrame {
            first_input: Some(Position { seq: 3, index: 0 }),
            last_input: Some(InputMark {
                seq: 3,
                index: 1,
                of: 2,
            }),
            ..OutputFrame::new(7)
        };
        let mut json = Vec::new();
        frame.write_head(&mut json).unwrap();
        json.extend_from_slice(br#"{"n":"]}"}"#);
        json.extend_from_slice(OutputFrame::JSON_TAIL);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn what_a_writer_makes_is_cut_as_it_is_read() {
        let frame = written();
        let quick = cut(&frame).unwrap();
        assert_eq!(quick.outcomes, Some(r#"[{"n":"]}"}]"#));
        let full = read_all(frame.as_bytes()).unwrap();
        assert_eq!((&full.head, &full.outcomes), (&quick.head, &quick.outcomes));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&full.around), value(&quick.around));
    }

    #[test]
    fn what_another_may_have_made_is_read_in_full() {
        for frame in [
            r#"{"v":1,"outcomes": []}"#,
            r#"{"outcomes":[],"v":1}"#,
            r#"{"v":1,"outcomes":[],"later":{}}"#,
            r#"{"v":1,"outcomes":[],"later":[{}]}"#,
            r#"{"v":1,"in":{"outcomes":[]},"outcomes":[{}]}"#,
            r#"{"v":1,"a\"outcomes":[]}"#,
            r#"{"v":1,"text":"\"outcomes\":[","outcomes":[{}]} "#,
            r#"{"outcomes":[]}"#,
        ] {
            assert_eq!(cut(frame), None, "{frame}");
        }
        let frame = r#"{"v":1,"outcomes":[],"later":{}}"#.as_bytes();
        let frame = Frame::read(frame, Reading::Quick).unwrap();
        assert_eq!(
            (&*frame.around, frame.outcomes),
            (r#"{"later":{},"v":1}"#, None)
        );
    }
}
