//! Every test that needs real servers, in one program, so that they share one NATS and one Postgres.

// Says that helpers are tests too, which the lint on `unwrap` wants to know.
#[cfg(test)]
mod suite {
    mod applier;
    mod bus;
    mod cluster_takeover;
    mod console;
    mod docker_compose;
    mod e2e;
    mod eventlog;
    mod fixtures;
    mod fuzz;
    mod gateways;
    mod guard;
    mod harness;
    mod hostile;
    mod ingest;
    mod planner;
    mod recovery;
    mod reducer;
    mod retention;
    mod store;
    mod tutorial;
}
