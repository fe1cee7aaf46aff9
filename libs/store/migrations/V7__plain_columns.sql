-- The typed columns of rows that change with every event are written beside the record: working them
-- out of the document took the server longer than everything else it does for such a row.

ALTER TABLE host_rollout_records
    ALTER COLUMN channel DROP EXPRESSION,
    ALTER COLUMN state DROP EXPRESSION,
    ALTER COLUMN target_closure DROP EXPRESSION,
    ALTER COLUMN soak_minutes DROP EXPRESSION,
    ALTER COLUMN dispatched_at DROP EXPRESSION,
    ALTER COLUMN current_closure_at_dispatch DROP EXPRESSION,
    ALTER COLUMN current_closure DROP EXPRESSION,
    ALTER COLUMN reverted_to DROP EXPRESSION,
    ALTER COLUMN dispatch_acked_at DROP EXPRESSION,
    ALTER COLUMN activation_started_at DROP EXPRESSION,
    ALTER COLUMN activation_completed_at DROP EXPRESSION,
    ALTER COLUMN activation_failed_at DROP EXPRESSION,
    ALTER COLUMN probe_observed_first_at DROP EXPRESSION,
    ALTER COLUMN probe_failure_first_at DROP EXPRESSION,
    ALTER COLUMN soak_due_at DROP EXPRESSION,
    ALTER COLUMN converged_at DROP EXPRESSION,
    ALTER COLUMN failed_at DROP EXPRESSION,
    ALTER COLUMN policy_applied DROP EXPRESSION,
    ALTER COLUMN reverted_at DROP EXPRESSION,
    ALTER COLUMN unchanged DROP EXPRESSION,
    ALTER COLUMN last_event_seq DROP EXPRESSION,
    ALTER COLUMN recovery_seq DROP EXPRESSION;

ALTER TABLE dispatch_queue
    ALTER COLUMN target_closure DROP EXPRESSION,
    ALTER COLUMN soak_minutes DROP EXPRESSION,
    ALTER COLUMN enqueued_at DROP EXPRESSION;

-- Minutes are JSON numbers.
ALTER TABLE host_rollout_records ALTER COLUMN soak_minutes TYPE double precision;
ALTER TABLE dispatch_queue ALTER COLUMN soak_minutes TYPE double precision;

-- What a new record has.
ALTER TABLE host_rollout_records
    ALTER COLUMN state SET DEFAULT 'Pending',
    ALTER COLUMN unchanged SET DEFAULT false,
    ALTER COLUMN last_event_seq SET DEFAULT 0,
    ALTER COLUMN recovery_seq SET DEFAULT 0;

COMMENT ON COLUMN host_rollout_records.record IS 'The exact record, the authority for restoring; the typed columns are written from it.';
COMMENT ON COLUMN dispatch_queue.record IS 'The exact dispatch, the authority for restoring; the typed columns are written from it.';
