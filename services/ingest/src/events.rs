//! Taking events: one, or an array of them whose items are answered one by one.

mod body;
mod bounds;
mod softening;

use std::collections::BTreeMap;
use std::fmt;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use http::{HeaderValue, StatusCode, header};
use nixfleet_http::{ApiError, Identity, JsonBody, Problem, not_appended};
use nixfleet_proto::wire::{EVENTS_PER_REQUEST_MAX, EventRequest};
use nixfleet_proto::{HostEvent, Hostname, RolloutId, json};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use self::body::parse_event;
use self::bounds::check_event;
pub use self::bounds::check_time;
use self::softening::soften;
use crate::admission::admit;
use crate::app_state::App;

#[derive(Debug)]
pub enum Events {
    One(Box<EventRequest>),
    /// An array, with what is wrong with those items that are no events.
    Many(Vec<Result<EventRequest, ApiError>>),
}

impl Events {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`parse_event`] for a single event. An array is refused as a whole when it is no JSON, has
    /// no items (400), or more than [`EVENTS_PER_REQUEST_MAX`] (413).
    pub fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first != Some(&b'[') {
            return Ok(Self::One(Box::new(parse_event(bytes)?)));
        }
        let events = match json::read::<Items<EventRequest>>(bytes) {
            Ok(Items::All(events)) => events.into_iter().map(Ok).collect(),
            Ok(Items::TooMany) => return Err(too_many()),
            // Some item is at fault; only now is it worth to look at each alone.
            Err(_) => one_by_one(bytes)?,
        };
        if events.is_empty() {
            let message = "an array holds at least one event";
            return Err(ApiError::field("invalid-field", "(body)", message));
        }
        Ok(Self::Many(events))
    }

    /// How many there are, at least one.
    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(events) => events.len(),
        }
    }
}

fn one_by_one(bytes: &[u8]) -> Result<Vec<Result<EventRequest, ApiError>>, ApiError> {
    match serde_json::from_slice::<Items<&RawValue>>(bytes) {
        Ok(Items::All(items)) => Ok(items
            .into_iter()
            .map(|item| parse_event(item.get().as_bytes()))
            .collect()),
        Ok(Items::TooMany) => Err(too_many()),
        Err(error) => {
            let message = format!("the body is not JSON: {error}");
            let status = StatusCode::BAD_REQUEST;
            Err(ApiError::refused(status, "invalid-json", message))
        }
    }
}

fn too_many() -> ApiError {
    ApiError::refused(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-many-events",
        format!("an array holds at most {EVENTS_PER_REQUEST_MAX} events"),
    )
}

/// The items of an array, read no further than they may be many.
#[derive(Debug)]
enum Items<T> {
    All(Vec<T>),
    TooMany,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor(std::marker::PhantomData))
    }
}

struct ItemsVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            if all.len() == EVENTS_PER_REQUEST_MAX {
                while items.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                return Ok(Items::TooMany);
            }
            all.push(item);
        }
        Ok(Items::All(all))
    }
}

/// Answers a request of an agent: 204 once its event is in the log, 200 with an answer per event for an
/// array.
///
/// # Errors
/// The refusal of the request, or of its single event.
pub async fn answer(
    app: &App,
    identity: &Identity,
    mut body: JsonBody,
) -> Result<Response, ApiError> {
    let bytes = body.read().await?;
    let events = Events::read(&bytes)?;
    let size = bytes.len();
    drop(bytes);
    // The request itself was counted before.
    if let Some(rates) = &app.access.rates {
        rates.take_body(&identity.name, events.len(), size)?;
    }
    match events {
        Events::One(mut request) => {
            check(identity, &mut request)?;
            let admitted = admit(app, &request.hostname, &request.rollout_id).await?;
            // Nothing of the event is kept while the log is waited for.
            let stored = app.log.append(admitted.event(
                request.event.into(),
                app.backends.bus.now(),
                size,
            ))?;
            stored.await.map_err(|error| not_appended(&error))?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Events::Many(events) => take_many(app, identity, events, size).await,
    }
}

/// The events of one rollout in a request.
#[derive(Default)]
struct RolloutEvents {
    /// Where they are in the request.
    places: Vec<usize>,
    events: Vec<HostEvent>,
}

async fn take_many(
    app: &App,
    identity: &Identity,
    events: Vec<Result<EventRequest, ApiError>>,
    size: usize,
) -> Result<Response, ApiError> {
    let mut refusals = vec![None; events.len()];
    let mut rollouts: BTreeMap<RolloutId, RolloutEvents> = BTreeMap::new();
    for (place, event) in events.into_iter().enumerate() {
        match event.and_then(|mut request| check(identity, &mut request).map(|()| request)) {
            Ok(request) => {
                let group = rollouts.entry(request.rollout_id).or_default();
                group.places.push(place);
                group.events.push(request.event.into());
            }
            Err(refusal) => refusals[place] = Some(refusal),
        }
    }
    let hostname = own_host(identity)?.clone();
    let appended = join_all(rollouts.into_iter().map(async |(rollout_id, group)| {
        let RolloutEvents { places, events } = group;
        let refusals = match admit(app, &hostname, &rollout_id).await {
            Ok(admitted) => {
                // The body may be mostly of these events: each group counts as the whole of it.
                let events = admitted.events(events, app.backends.bus.now(), size);
                app.log.append_in_order(&events).await
            }
            Err(refusal) => vec![Some(refusal); places.len()],
        };
        places.into_iter().zip(refusals)
    }));
    for (place, refusal) in appended.await.into_iter().flatten() {
        refusals[place] = refusal;
    }
    Ok(answers(refusals))
}

/// Checks what an event says by itself; cuts texts that are too long.
fn check(identity: &Identity, request: &mut EventRequest) -> Result<(), ApiError> {
    require_own_host(identity, &request.hostname)?;
    require_strict_id(&request.rollout_id)?;
    soften(&mut request.event.body);
    check_event(request)
}

/// The host that a certificate is for.
///
/// # Errors
/// 403 for anyone else, whom the table of routes has refused.
pub fn own_host(identity: &Identity) -> Result<&Hostname, ApiError> {
    let refused = |message| ApiError::refused(StatusCode::FORBIDDEN, "hostname-mismatch", message);
    let host = identity.host.as_ref();
    host.ok_or_else(|| refused("the certificate is that of no host".to_owned()))
}

/// A host speaks for itself alone.
///
/// # Errors
/// 403.
pub fn require_own_host(identity: &Identity, hostname: &Hostname) -> Result<(), ApiError> {
    if identity.host.as_ref() == Some(hostname) {
        return Ok(());
    }
    Err(ApiError::refused(
        StatusCode::FORBIDDEN,
        "hostname-mismatch",
        format!(
            "the certificate is that of {}, not of the host in the body",
            identity.name
        ),
    ))
}

/// Ids of a body may be sloppier than what is a legal id here.
///
/// # Errors
/// 400.
pub fn require_strict_id(rollout_id: &RolloutId) -> Result<(), ApiError> {
    RolloutId::parse_strict(rollout_id.as_str())
        .map(drop)
        .map_err(|error| ApiError::field("invalid-rollout-id", "rolloutId", error))
}

/// The answer to one item of an array.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum ItemAnswer {
    Stored { status: u16 },
    Refused(Box<Problem>),
}

fn answers(refusals: Vec<Option<ApiError>>) -> Response {
    let pauses = refusals.iter().flatten();
    let pause = pauses.filter_map(ApiError::retry_after_seconds).max();
    let answers: Vec<ItemAnswer> = refusals
        .into_iter()
        .map(|refusal| match refusal {
            None => ItemAnswer::Stored {
                status: StatusCode::NO_CONTENT.as_u16(),
            },
            Some(refusal) => {
                count(&refusal);
                ItemAnswer::Refused(Box::new(refusal.into_problem()))
            }
        })
        .collect();
    let mut response = Json(answers).into_response();
    if let Some(seconds) = pause {
        let seconds = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// Items are counted like requests; the answer as a whole is a success.
fn count(refusal: &ApiError) {
    if refusal.status().is_client_error() {
        let kind = refusal.code();
        metrics::counter!("nixfleet_hostile_input_total", "kind" => kind).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> String {
        format!(
            r#"{{"hostname":"a","rolloutId":"stable@4f","event":{{"kind":"Converged","seq":{seq},
            "convergedAt":"2026-01-01T00:00:00Z","currentClosure":"c"}}}}"#
        )
    }

    #[track_caller]
    fn check(body: &str, expected: &[&str]) {
        let names: Vec<String> = match Events::read(body.as_bytes()) {
            Ok(Events::One(request)) => vec![format!("one {}", request.event.seq)],
            Ok(Events::Many(events)) => events
                .into_iter()
                .map(|event| match event {
                    Ok(request) => request.event.seq.to_string(),
                    Err(refusal) => refusal.code().to_owned(),
                })
                .collect(),
            Err(refusal) => vec![format!("{} {}", refusal.status().as_u16(), refusal.code())],
        };
        assert_eq!(names, expected);
    }

    fn array(items: &[&str]) -> String {
        format!(" [{}]\n", items.join(","))
    }

    #[test]
    fn one_event_or_an_array_of_them() {
        check(&event(1), &["one 1"]);
        check(&array(&[&event(1)]), &["1"]);
        check(&array(&[&event(1), &event(2)]), &["1", "2"]);
    }

    #[test]
    fn bad_items_do_not_spoil_the_others() {
        let unknown = event(2).replace("Converged", "Exploded");
        let items = [&event(1), "7", &unknown, "null", "{}", &event(3)];
        let names = [
            "1",
            "invalid-field",
            "unknown-event-kind",
            "invalid-field",
            "invalid-field",
            "3",
        ];
        check(&array(&items), &names);
    }

    #[test]
    fn what_is_no_array_of_events_is_refused_as_a_whole() {
        check("[]", &["400 invalid-field"]);
        check("[", &["400 invalid-json"]);
        check(&format!("[{}", event(1)), &["400 invalid-json"]);
        check(&format!("[{}] x", event(1)), &["400 invalid-json"]);
        check(&"[".repeat(200_000), &["400 invalid-json"]);
        check("", &["400 invalid-json"]);
    }

    #[test]
    fn an_array_has_a_hundred_items_at_most() {
        let event = event(1);
        let many = |count| array(&vec![event.as_str(); count]);
        check(&many(100), &["1"; 100]);
        check(&many(101), &["413 too-many-events"]);
        check(&array(&["1"; 100_000]), &["413 too-many-events"]);
    }
}
