//! Every test that needs real servers, in one program, so that they share one NATS and one Postgres.

// Says that helpers are tests too, which the lint on `unwrap` wants to know.
#[cfg(test)]
mod suite {
    mod applier;
    mod bus;
    mod cluster_takeover;
    mod console;
    mod docker_compose;
    mod documented_names;
    mod e2e;
    mod eventlog;
    mod fuzz;
    mod gateways;
    mod guard;
    mod harness_self_test;
    mod hostile;
    mod ingest;
    mod log_trimming;
    mod otlp_export;
    mod planner;
    mod recovery;
    mod reducer;
    mod service_testbed;
    mod store;
    mod tutorial;
}
