UPDATE host_rollout_records AS r
SET record = n.record, input_seq = n.input_seq, input_index = n.input_index,
    traceparent = n.traceparent, state = n.state,
    current_closure_at_dispatch = n.current_closure_at_dispatch,
    current_closure = n.current_closure, reverted_to = n.reverted_to,
    dispatch_acked_at = n.dispatch_acked_at, activation_started_at = n.activation_started_at,
    activation_completed_at = n.activation_completed_at,
    activation_failed_at = n.activation_failed_at,
    probe_observed_first_at = n.probe_observed_first_at,
    probe_failure_first_at = n.probe_failure_first_at, soak_due_at = n.soak_due_at,
    converged_at = n.converged_at, failed_at = n.failed_at, reverted_at = n.reverted_at,
    policy_applied = n.policy_applied, unchanged = n.unchanged,
    last_event_seq = n.last_event_seq::numeric, recovery_seq = n.recovery_seq::numeric
FROM unnest($1::text[], $2::text[], $3::json[], $4::bigint[], $5::bigint[], $6::text[],
            $7::text[], $8::text[], $9::text[], $10::text[], $11::timestamptz[],
            $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
            $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[],
            $20::timestamptz[], $21::text[], $22::boolean[], $23::text[], $24::text[])
     AS n (rollout_id, hostname, record, input_seq, input_index, traceparent,
           state, current_closure_at_dispatch, current_closure, reverted_to, dispatch_acked_at,
           activation_started_at, activation_completed_at, activation_failed_at,
           probe_observed_first_at, probe_failure_first_at, soak_due_at, converged_at, failed_at,
           reverted_at, policy_applied, unchanged, last_event_seq, recovery_seq)
WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname
