//! Every test that needs real servers, in one program, so that they share one NATS and one Postgres.

mod suite {
    mod applier;
    mod bus;
    mod compose;
    mod e2e;
    mod eventlog;
    mod guard;
    mod harness;
    mod ingest;
    mod planner;
    mod reducer;
    mod store;
}
