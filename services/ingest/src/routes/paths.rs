//! Paths that more than the router knows.

/// Path of the long-poll, which holds a request open for a minute.
pub const DISPATCH_ROUTE: &str = "/v1/agent/dispatch";
/// Path of events, which the gateway answers before its router is asked.
pub const EVENTS_ROUTE: &str = "/v1/agent/events";
