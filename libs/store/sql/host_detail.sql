SELECT hostname, rollout_id, record::text, wave, staged, dispatch::text, recovery_candidate,
       input_seq, input_index, traceparent, last_seen_at, running_closure, quarantined,
       compliance_failures, health_failures
FROM host_views
WHERE hostname = $1
ORDER BY rollout_id
